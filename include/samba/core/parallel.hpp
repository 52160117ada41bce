#pragma once
/// \file
/// Threads. This is the one header that knows OpenMP; without it everything runs on one thread.
#include <samba/core/scalar.hpp>

#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <ctime>

#ifdef _OPENMP
#include <omp.h>

namespace samba {

/// The process in which the calling thread first ran a team, 0: in none. Outside the inline
/// namespace: all code of a program has OpenMP's threads in common.
inline thread_local ::pid_t team_process = 0;

}  // namespace samba
#endif

namespace samba::inline SAMBA_TARGET {

/// A clock that never goes back. (<chrono> would cost each program an eighth of what samba.hpp does.)
inline std::int64_t nanoseconds() {
  ::timespec now{};
  ::clock_gettime(CLOCK_MONOTONIC, &now);
  const std::int64_t seconds = now.tv_sec;
  return seconds * 1'000'000'000 + now.tv_nsec;
}

/// How often a waiting thread looks before it sleeps: for about as long as the system takes to wake it.
inline constexpr int barrier_spins = 50000;

/// What the threads of a team wait at.
struct Barrier {
  std::atomic<int> arrived{0};
  std::atomic<unsigned> passed{0};
  std::atomic<std::int64_t> slept{0};  ///< nanoseconds, of all threads together
};

/// One thread's place among those that run a kernel together. A default Team runs alone.
struct Team {
  int rank = 0, size = 1;
  Barrier* shared = nullptr;

  /// This thread's contiguous share of n items, in whole units of `grain`. The results of a kernel
  /// do not depend on the shares: whatever is added up, is added up by one thread.
  [[gnu::noinline]] Range share(std::int64_t n, std::int64_t grain = 1) const {
    const std::int64_t units = (n + grain - 1) / grain;
    const std::int64_t begin = units * rank / size * grain, end = units * (rank + 1) / size * grain;
    return {(std::min)(begin, n), (std::min)(end, n)};
  }

  /// Returns when every thread of the team has called it. Threads spin for about as long as it takes
  /// the system to wake one, then sleep: on a busy machine the one they wait for may need the processor.
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

/// How far one thread has come in work that another one follows. The numbers only grow.
class Progress {
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

/// The threads that sessions and training run on at most: the processors that this process may use.
/// (More threads than processors only wait for each other.) It can be set, to 1 or more, before they
/// are made.
inline int& most_threads() {
#ifdef _OPENMP
  static int most = omp_get_num_procs();
#else
  static int most = 1;
#endif
  return most;
}

/// The threads for an option `threads`: at most most_threads(). 0 stands for OpenMP's maximum, or for 1
/// where the caller is parallel already.
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

/// Notes that the calling thread runs teams in this process. False if it did in the one that this was
/// forked from: its threads are not here, and GCC's runtime would wait for them without end.
[[gnu::noinline]] inline bool has_threads() {
  const ::pid_t process = ::getpid();
  if (team_process == 0) team_process = process;
  return team_process == process;
}

}  // namespace detail
#endif

/// Calls f(team) once on each of `threads` threads and returns when all are done: the nanoseconds that
/// they slept at barriers, all together. f must not throw. Where the runtime grants fewer threads, the
/// team is that much smaller; in a forked process whose parent ran teams it is one thread.
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

/// How many threads the next of many similar calls is to run on: as many as there are, or fewer while
/// another program keeps one of their processors busy, for then all wait for the thread that shares
/// it. Learns from each call, and tries all threads again from time to time, ever more rarely while it
/// is in vain. Where fewer threads are no faster, all run, and fewer are tried ever more rarely. (GCC's
/// OpenMP ends the threads that a smaller team leaves over, and starts them again for a larger one.)
class TeamSize {
 public:
  explicit TeamSize(int most) : most_(most), size_(most) {}

  int next() const { return size_; }

  /// What a call on next() threads was: its work (only calls of equal work are compared), the seconds it
  /// took, the nanoseconds that its threads slept, all together.
  void ran(std::int64_t work, double seconds, std::int64_t slept) {
    if (most_ == 1) return;
    // One thread at least does not sleep.
    const double each = static_cast<double>(slept) * 1e-9 / (std::max)(1, size_ - 1);
    const bool disturbed = each > 0.25 * seconds;
    if (calls_left_ > 0) {
      --calls_left_, seconds_left_ -= seconds;
      if (size_ < most_) judge(work, seconds, disturbed);
      if (seconds_left_ <= 0) calls_left_ = 0;
      if (calls_left_ == 0) size_ = most_;
    } else if (!disturbed) {
      pause_ = shortest_pause, quiet_ = true;
    } else if (quiet_) {
      quiet_ = false;  // once may be chance
    } else {
      work_ = work, seconds_ = seconds, calls_left_ = pause_, seconds_left_ = longest_seconds;
      size_ = fewer(most_), helped_ = false;
    }
  }

 private:
  static constexpr int shortest_pause = 16, longest_pause = 1024;
  static constexpr double longest_seconds = 10;

  static int fewer(int threads) { return threads - (threads + 3) / 4; }

  /// Of a call on fewer threads than all.
  void judge(std::int64_t work, double seconds, bool disturbed) {
    const bool faster = work == work_ && seconds <= seconds_;
    if (!helped_) {  // the first
      if (work == work_) pause_ = (std::min)(4 * pause_, longest_pause);
      helped_ = faster;
      if (!faster) size_ = most_;  // it is not the other program, or cannot be known
    } else if (work == work_ && !faster) {
      calls_left_ = 0;  // not any longer
    }
    if (faster && disturbed && size_ > 1) size_ = fewer(size_);
  }

  // size_: of the next calls_left_ calls. Then all threads run, to see whether they are disturbed.
  int most_, size_, calls_left_ = 0, pause_ = shortest_pause;
  std::int64_t work_ = 0;  // of the last such call
  double seconds_ = 0, seconds_left_ = 0;
  bool helped_ = false;  // fewer threads, since then
  bool quiet_ = false;   // the last call on all threads
};

}  // namespace samba::inline SAMBA_TARGET
