#include <samba/core/parallel.hpp>

#include <tests/catch.hpp>

#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <cstdint>
#include <numeric>
#include <vector>

using namespace samba;

TEST_CASE("Team::share: the shares cover everything once, in whole grains") {
  for (int size = 1; size <= 7; ++size)
    for (std::int64_t grain = 1; grain <= 17; grain += 4)
      for (std::int64_t n = 0; n <= 100; ++n) {
        CAPTURE(size, grain, n);
        std::int64_t at = 0, most = 0, least = n;
        for (int rank = 0; rank < size; ++rank) {
          const Range share = Team{rank, size}.share(n, grain);
          CHECK(share.begin == at);
          CHECK(share.end >= share.begin);
          CHECK((share.begin % grain == 0 || share.begin == n));
          most = std::max(most, share.end - share.begin);
          least = std::min(least, share.end - share.begin);
          at = share.end;
        }
        CHECK(at == n);
        CHECK(most - least < 2 * grain);  // one grain, and the last grain may be incomplete
      }
}

TEST_CASE("Team::share: a team of one has everything, large numbers do not overflow") {
  const Range all = Team{}.share(12345, 16);
  CHECK((all.begin == 0 && all.end == 12345));
  constexpr std::int64_t large = std::int64_t{1} << 56;
  CHECK(Team{2, 3}.share(large).end == large);
}

TEST_CASE("parallel: every rank runs once, all of one size") {
  for (int threads = 1; threads <= 4; ++threads) {
    CAPTURE(threads);
    std::vector<std::atomic<int>> calls(static_cast<std::size_t>(threads));
    std::atomic<int> size{0}, wrong{0};
    parallel(threads, [&](Team team) {
      int expected = 0;
      size.compare_exchange_strong(expected, team.size);
      if (team.size != size || team.rank < 0 || team.rank >= team.size || team.size > threads)
        ++wrong;
      else
        ++calls[static_cast<std::size_t>(team.rank)];
    });
    CHECK(wrong == 0);
    for (int rank = 0; rank < threads; ++rank)
      CHECK(calls[static_cast<std::size_t>(rank)] == (rank < size ? 1 : 0));
#ifdef _OPENMP
    CHECK(size == threads);
#else
    CHECK(size == 1);
#endif
  }
}

TEST_CASE("parallel: barriers separate what is written from what is read") {
  for (int threads = 1; threads <= 4; ++threads) {
    CAPTURE(threads);
    std::vector<int> written(static_cast<std::size_t>(threads));
    std::atomic<int> wrong{0};
    parallel(threads, [&](Team team) {
      for (int round = 1; round <= 200; ++round) {
        written[static_cast<std::size_t>(team.rank)] = round;
        team.barrier();
        if (std::accumulate(written.begin(), written.begin() + team.size, 0) != round * team.size)
          ++wrong;
        team.barrier();
      }
    });
    CHECK(wrong == 0);
  }
}

TEST_CASE("parallel: a forked process whose parent ran a team has one thread, and goes on") {
  const auto size_here = [] {
    std::atomic<int> size{0};
    parallel(4, [&](Team team) {
      team.barrier();
      if (team.rank == 0) size = team.size;
    });
    return size.load();
  };
  CHECK(size_here() >= 1);
  const pid_t child = ::fork();
  if (child == 0) {
    ::alarm(60);  // it hung
    ::_exit(size_here());
  }
  int status = 0;
  REQUIRE(::waitpid(child, &status, 0) == child);
  CHECK(WIFEXITED(status));
  CHECK(WEXITSTATUS(status) == 1);
#ifdef _OPENMP
  CHECK(size_here() == 4);  // its parent keeps its own
#endif
}

TEST_CASE("parallel: inside a parallel region one thread is the default and a team of one works") {
  CHECK(usable_threads(0) >= 1);
  std::atomic<int> calls{0}, wrong{0};
  parallel(2, [&](Team outer) {
    if (outer.size > 1 && usable_threads(0) != 1) ++wrong;
    parallel(1, [&](Team team) {
      if (team.size != 1 || team.rank != 0) ++wrong;
      team.barrier();  // of this team: must not wait for the outer one
      ++calls;
    });
    outer.barrier();
    if (calls != outer.size) ++wrong;
  });
  CHECK(wrong == 0);
}
