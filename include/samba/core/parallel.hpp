#pragma once
/// \file
/// Threads. This is the only header that uses OpenMP; without OpenMP everything runs on one thread.
#include <samba/core/scalar.hpp>

#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <ctime>

#ifdef _OPENMP
#include <omp.h>

namespace samba {

/// The process in which the calling thread first ran a team, or 0 if it has run none. Outside the
/// inline namespace, because all code of a program shares OpenMP's threads.
inline thread_local ::pid_t team_process = 0;

}  // namespace samba
#endif

namespace samba::inline SAMBA_TARGET {

/// A monotonic clock. (The header chrono would add an eighth to the compile time of samba.hpp.)
inline std::int64_t nanoseconds() {
  ::timespec now{};
  ::clock_gettime(CLOCK_MONOTONIC, &now);
  const std::int64_t seconds = now.tv_sec;
  return seconds * 1'000'000'000 + now.tv_nsec;
}

/// How often a waiting thread polls before it sleeps: for about as long as the system takes to wake
/// it.
inline constexpr int barrier_spins = 50000;

/// The state of a team's barrier.
struct Barrier {
  std::atomic<int> arrived{0};
  std::atomic<unsigned> passed{0};
  std::atomic<std::int64_t> slept{0};  ///< nanoseconds, of all threads together
};

/// One thread of those that run a kernel together. A default Team is a single thread.
struct Team {
  int rank = 0, size = 1;
  Barrier* shared = nullptr;

  /// This thread's contiguous share of n items, in multiples of `grain`. Results do not depend on
  /// how the work is shared: each sum is computed by one thread, in one order.
  [[gnu::noinline]] Range share(std::int64_t n, std::int64_t grain = 1) const {
    const std::int64_t units = (n + grain - 1) / grain;
    const std::int64_t begin = units * rank / size * grain, end = units * (rank + 1) / size * grain;
    return {(std::min)(begin, n), (std::min)(end, n)};
  }

  /// Returns when every thread of the team has called it. Threads spin for about as long as the
  /// system takes to wake one, then sleep: on a busy machine the thread they wait for may need the
  /// processor.
  void barrier() const {
    if (size > 1) wait();
  }

 private:
  [[gnu::noinline]] void wait() const {
    const unsigned round = shared->passed.load(std::memory_order_relaxed);
    if (shared->arrived.fetch_add(1, std::memory_order_acq_rel) + 1 == size) {
      shared->arrived.store(0, std::memory_order_relaxed);
      shared->passed.store(round + 1, std::memory_order_release);
      shared->passed.notify_all();
      return;
    }
    for (int turn = 0; turn < barrier_spins; ++turn)
      if (shared->passed.load(std::memory_order_acquire) != round) return;
    const std::int64_t start = nanoseconds();
    shared->passed.wait(round, std::memory_order_acquire);
    shared->slept.fetch_add(nanoseconds() - start, std::memory_order_relaxed);
  }
};

/// How far one thread has got in work that another thread must not overtake. The numbers only grow.
class ThreadProgress {
 public:
  void reach(std::int64_t step) {
    reached_.store(step, std::memory_order_release);
    reached_.notify_all();
  }
  /// Returns when `step` has been reached: spins first, then sleeps, as a team's barrier does.
  [[gnu::noinline]] void wait_for(std::int64_t step) const {
    std::int64_t seen = 0;
    for (int turn = 0; turn < barrier_spins; ++turn)
      if (reached_.load(std::memory_order_acquire) >= step) return;
    while ((seen = reached_.load(std::memory_order_acquire)) < step)
      reached_.wait(seen, std::memory_order_acquire);
  }

 private:
  std::atomic<std::int64_t> reached_{0};
};

/// The most threads that sessions and training use: the processors available to this process. (More
/// threads than processors only wait for each other.) Set it, to 1 or more, before creating them.
inline int& most_threads() {
#ifdef _OPENMP
  static int most = omp_get_num_procs();
#else
  static int most = 1;
#endif
  return most;
}

/// The number of threads for an option `threads`: at most most_threads(). 0 means OpenMP's maximum,
/// or 1 inside a parallel region.
inline int usable_threads(int asked) {
#ifdef _OPENMP
  if (asked == 0) asked = omp_in_parallel() ? 1 : omp_get_max_threads();
#else
  asked = 1;
#endif
  return (std::max)(1, (std::min)(asked, most_threads()));
}

#ifdef _OPENMP
namespace detail {

/// Records that the calling thread runs teams in this process. False if it already did so in the
/// process that this one was forked from: those threads do not exist here, and GCC's runtime would
/// wait for them forever.
[[gnu::noinline]] inline bool has_threads() {
  const ::pid_t process = ::getpid();
  if (team_process == 0) team_process = process;
  return team_process == process;
}

}  // namespace detail
#endif

/// Calls f(team) once on each of `threads` threads, waits for all of them, and returns the total
/// time that they slept at barriers, in nanoseconds. f must not throw. If the runtime grants fewer
/// threads, the team is smaller; in a forked process whose parent ran teams it has one thread.
template <class F>
std::int64_t parallel(int threads, F&& f) {
#ifdef _OPENMP
  if (threads > 1 && detail::has_threads()) {
    Barrier barrier;
#pragma omp parallel num_threads(threads)
    f(Team{omp_get_thread_num(), omp_get_num_threads(), &barrier});
    return barrier.slept;
  }
#endif
  static_cast<void>(threads);
  f(Team{});
  return 0;
}

/// Chooses the number of threads for each of many similar calls: all of them, or fewer while
/// another program keeps one of the processors busy, because then every thread waits for the one
/// that shares it. Learns from each call. While fewer are used, all are tried again from time to
/// time, less and less often if that does not help; where fewer are no faster, they are tried less
/// and less often too. (GCC's OpenMP ends the threads that a smaller team does not need and starts
/// them again for a larger one.)
class TeamSize {
 public:
  explicit TeamSize(int most) : most_(most), size_(most) {}

  int next() const { return size_; }

  /// Reports a call on next() threads: its work (only calls of equal work are compared), its time
  /// in seconds, and the total time its threads slept, in nanoseconds.
  void ran(std::int64_t work, double seconds, std::int64_t slept) {
    if (most_ == 1) return;
    // At least one thread does not sleep.
    const double each = static_cast<double>(slept) * 1e-9 / (std::max)(1, size_ - 1);
    const bool disturbed = each > 0.25 * seconds;
    if (calls_left_ > 0) {
      --calls_left_;
      seconds_left_ -= seconds;
      if (size_ < most_) judge(work, seconds, disturbed);
      if (seconds_left_ <= 0) calls_left_ = 0;
      if (calls_left_ == 0) size_ = most_;
    } else if (!disturbed) {
      pause_ = shortest_pause;
      quiet_ = true;
    } else if (quiet_) {
      quiet_ = false;  // a single one may be chance
    } else {
      work_ = work;
      seconds_ = seconds;
      calls_left_ = pause_;
      seconds_left_ = longest_seconds;
      size_ = fewer(most_);
      helped_ = false;
    }
  }

 private:
  static constexpr int shortest_pause = 16, longest_pause = 1024;
  static constexpr double longest_seconds = 10;

  static int fewer(int threads) { return threads - (threads + 3) / 4; }

  /// Judges a call on fewer than all threads.
  void judge(std::int64_t work, double seconds, bool disturbed) {
    const bool faster = work == work_ && seconds <= seconds_;
    if (!helped_) {  // the first
      if (work == work_) pause_ = (std::min)(4 * pause_, longest_pause);
      helped_ = faster;
      if (!faster) size_ = most_;  // fewer threads do not help, or the calls cannot be compared
    } else if (work == work_ && !faster) {
      calls_left_ = 0;  // no longer faster
    }
    if (faster && disturbed && size_ > 1) size_ = fewer(size_);
  }

  // size_ is for the next calls_left_ calls. After them all threads run, to see whether they are
  // disturbed.
  int most_, size_, calls_left_ = 0, pause_ = shortest_pause;
  std::int64_t work_ = 0;  // of the last such call
  double seconds_ = 0, seconds_left_ = 0;
  bool helped_ = false;  // fewer threads were faster
  bool quiet_ = false;   // the last call on all threads was not disturbed
};

}  // namespace samba::inline SAMBA_TARGET
