#pragma once
#include <samba/core/config.hpp>

#include <type_traits>

namespace samba::inline SAMBA_TARGET {

/// A reference to a callable that takes Args: two plain pointers, so that code that takes a
/// callback is compiled once. Valid as long as the callable is.
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
