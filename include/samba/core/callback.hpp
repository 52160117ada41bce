#pragma once
#include <samba/core/config.hpp>

#include <type_traits>

namespace samba::inline SAMBA_TARGET {

/// A reference to a callable that takes Args; a plain pointer pair, so that code which calls back
/// is compiled once. Valid while the callable lives.
template <class... Args>
class Callback {
 public:
  template <class F>
  Callback(F&& f)
      : object_(&f), call_([](const void* o, Args... args) {
          (*static_cast<std::remove_reference_t<F>*>(const_cast<void*>(o)))(args...);
        }) {}
  void operator()(Args... args) const { call_(object_, args...); }

 private:
  const void* object_;
  void (*call_)(const void*, Args...);
};

}  // namespace samba::inline SAMBA_TARGET
