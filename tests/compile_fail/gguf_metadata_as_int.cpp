#include <samba/io/gguf.hpp>
using namespace samba;

// expect: GGUF metadata is read as bool, std::int64_t, float, double or std::string_view
int f(const GgufFile& file) { return file.metadata().get<int>("llama.block_count"); }
