// Two translation units, compiled with different flags, run the same model in one program.
#include <cmath>
#include <cstdio>
#include <vector>

std::vector<float> first_logits();
std::vector<float> second_logits();

int main() {
  const std::vector<float> first = first_logits(), second = second_logits();
  if (first.empty() || first.size() != second.size()) return std::puts("the sizes differ"), 1;
  float worst = 0, largest = 0;
  for (std::size_t i = 0; i < first.size(); ++i) {
    worst = std::fmax(worst, std::fabs(first[i] - second[i]));
    largest = std::fmax(largest, std::fabs(first[i]));
  }
  std::printf("%zu logits up to %.9g differ by at most %.9g\n", first.size(),
              static_cast<double>(largest), static_cast<double>(worst));
  return largest > 0.01f && worst <= 1e-4f ? 0 : 1;
}
