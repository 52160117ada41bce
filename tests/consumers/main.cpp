// The program of somebody who uses samba: a constant of a published model, and a tiny one that
// runs.
#include "tiny_model.hpp"

#include <cstdio>

int main() {
  std::printf("%s\n", samba::build_info().c_str());
  std::printf("Samba421M has %lld parameters\n",
              static_cast<long long>(samba::presets::Samba421M::parameters));
  const std::vector<float> logits = tiny_logits();
  std::printf("logit 0 of %zu is %g\n", logits.size(), static_cast<double>(logits[0]));
  bool good = samba::presets::Samba421M::parameters == 421'793'280 && logits.size() == 50;
  for (const float logit : logits) good = good && samba::is_finite(logit) && logit != 0;
  return good ? 0 : 1;
}
