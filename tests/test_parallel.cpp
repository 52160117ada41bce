#include <samba/core/parallel.hpp>

#include <tests/catch.hpp>

#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstdint>
#include <numeric>
#include <thread>
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

TEST_CASE("parallel returns how long its threads slept at barriers") {
  using namespace std::chrono_literals;
  const auto slept = [](int threads) {
    return parallel(threads, [](Team team) {
      if (team.rank == 0) std::this_thread::sleep_for(500ms);
      team.barrier();
    });
  };
  CHECK(slept(1) == 0);
#ifdef _OPENMP
  CHECK(slept(2) > 0);
#endif
}

TEST_CASE("usable_threads: at most the processors, or what is set instead") {
  const int most = most_threads();
  CHECK(most >= 1);
  for (const int limit : {1, 3, most}) {
    CAPTURE(limit);
    most_threads() = limit;
    CHECK((usable_threads(0) >= 1 && usable_threads(0) <= limit));
    CHECK(usable_threads(1) == 1);
#ifdef _OPENMP
    CHECK(usable_threads(0) == std::min(omp_get_max_threads(), limit));
    CHECK(usable_threads(limit) == limit);
    CHECK(usable_threads(limit + 1) == limit);
    CHECK(usable_threads(1 << 30) == limit);
#else
    CHECK(usable_threads(1 << 30) == 1);
#endif
  }
  for (const int wrong : {0, -3}) {
    most_threads() = wrong;
    CHECK(usable_threads(0) == 1);
    CHECK(usable_threads(4) == 1);
  }
  most_threads() = most;
}

namespace {

/// A machine on which calls take a time by their threads, and those on more than `undisturbed` sleep.
struct Machine {
  TeamSize size;
  int most, undisturbed;
  std::vector<double> milliseconds;  // on 1, 2, ... threads

  /// A call; returns its threads.
  int call(std::int64_t work = 1) {
    const int threads = size.next();
    const double time = 1e-3 * milliseconds[static_cast<std::size_t>(threads - 1)];
    const auto slept = static_cast<std::int64_t>(time * 0.9e9 * (threads - 1));
    size.ran(work, time, threads > undisturbed ? slept : 0);
    return threads;
  }
  /// The next calls that run on all threads, by their numbers.
  std::vector<int> on_all(int calls) {
    std::vector<int> numbers;
    for (int i = 0; i < calls; ++i)
      if (call() == most) numbers.push_back(i);
    return numbers;
  }
};

}  // namespace

TEST_CASE("TeamSize: calls that nothing disturbs run on all threads") {
  for (int most = 1; most <= 5; ++most) {
    TeamSize size(most);
    for (int i = 0; i < 5000; ++i) {
      CHECK(size.next() == most);
      size.ran(i % 3, 1e-3 * (1 + i % 7), 200'000);  // a short sleep disturbs nothing
    }
  }
  TeamSize one(1);
  one.ran(1, 1, 900'000'000);
  CHECK(one.next() == 1);
}

TEST_CASE("TeamSize: fewer threads where they are faster, and all again when the other has gone") {
  Machine busy{TeamSize(4), 4, 3, {4, 2, 1.4, 2.8}};
  const std::vector<int> tries = busy.on_all(20000);
  REQUIRE(tries.size() > 4);
  CHECK(tries.front() == 0);
  for (std::size_t i = 2; i < tries.size(); ++i)
    CHECK(tries[i] - tries[i - 1] >= tries[i - 1] - tries[i - 2]);
  CHECK(tries[1] <= 32);
  CHECK(tries.size() < 40);
  CHECK(busy.size.next() == 3);
  busy.undisturbed = 4;
  busy.milliseconds[3] = 1;
  const std::vector<int> after = busy.on_all(5000);
  REQUIRE(after.front() <= 1024);
  CHECK(after.back() - after.front() + 1 == std::ssize(after));  // all from then on
  // The next time pauses are short again. One call that is disturbed may be chance.
  busy.undisturbed = 3;
  busy.milliseconds[3] = 2.8;
  CHECK(busy.on_all(40).size() == 3);

  // Long calls are not many: after seconds, not only after calls, all threads are tried again.
  Machine slow{TeamSize(2), 2, 1, {2000, 4000}};
  CHECK(slow.on_all(200).size() > 200 / 6);

  // Down to the number that nothing disturbs, and to one.
  Machine busier{TeamSize(8), 8, 2, {4, 3, 4, 5, 6, 7, 8, 9}};
  for (int i = 0; i < 8; ++i) busier.call();
  CHECK(busier.size.next() == 2);
  Machine busiest{TeamSize(2), 2, 1, {1, 2}};
  CHECK(busiest.call() == 2);
  for (int i = 0; i < 10; ++i) CHECK(busiest.call() == 1);
}

TEST_CASE("TeamSize: all threads at once where fewer are no faster, tried ever more rarely") {
  Machine waits{TeamSize(4), 4, 3, {4, 2, 1.4, 1.2}};
  CHECK(waits.call() == 4);
  CHECK(waits.call() == 3);
  CHECK(waits.call() == 4);
  int fewer = 0, last = 0, pause = 0;
  for (int i = 1; i <= 20000; ++i) {
    if (waits.call() == 4) continue;
    ++fewer;
    CHECK(i - last >= pause);
    pause = i - last;
    last = i;
  }
  CHECK(fewer < 40);

  // Faster at first, then not: it looks at once.
  Machine changes{TeamSize(4), 4, 3, {4, 2, 1.4, 2.8}};
  for (int i = 0; i < 5; ++i) changes.call();
  changes.milliseconds[2] = 3;
  CHECK(changes.call() == 3);
  CHECK(changes.call() == 4);

  // Calls of other work cannot be compared; most of them run on all threads.
  Machine varies{TeamSize(4), 4, 3, {4, 2, 1.4, 2.8}};
  fewer = 0;
  for (int i = 0; i < 1000; ++i) fewer += varies.call(i) < 4;
  CHECK(fewer < 100);
}
