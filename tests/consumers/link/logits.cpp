// Compiled twice into one program, LOGITS being another name and the flags being others.
#include "../tiny_model.hpp"

std::vector<float> LOGITS();
std::vector<float> LOGITS() { return tiny_logits(); }
