#pragma once
#include <samba/core/parallel.hpp>
#include <samba/io/format/fla.hpp>
#include <samba/io/format/llama.hpp>
#include <samba/io/format/mamba.hpp>
#include <samba/io/format/samba.hpp>
#include <samba/io/shards.hpp>
#include <samba/model/weights.hpp>

#include <atomic>
#include <cstring>

namespace samba::inline SAMBA_TARGET {

namespace detail {

/// The formats of safetensors files, in the order in which a file is tried.
inline constexpr const CheckpointFormat* all_formats[] = {
    &formats::original_mamba,  &formats::mamba,  &formats::fla,   &formats::phi3,
    &formats::recurrent_gemma, &formats::gemma2, &formats::llama, &formats::samba};

/// The format of a checkpoint's names; this library's own if they match no other.
[[gnu::cold]] inline const CheckpointFormat& format_of(const Checkpoint& file) {
  for (const CheckpointFormat* format : all_formats)
    if (format->mark.empty() ? file.find(format->embedding) || file.find(format->norm)
                             : file.find(format->mark) != nullptr)
      return *format;
  return formats::samba;
}

[[gnu::cold]] inline Checkpoint open_checkpoint(const std::string& path) {
  Checkpoint file = Checkpoint::open(path);
  if (file.find("samba.packed"))
    fail({path, ": these are packed weights; read them with load_packed"});
  return file;
}

/// True if two tensors in a file have the same type and bytes.
[[gnu::cold]] inline bool same_numbers(const TensorView& a, const TensorView& b) {
  return a.dtype == b.dtype && a.shape == b.shape &&
         std::memcmp(a.data.data(), b.data.data(), a.data.size()) == 0;
}

/// Maps a model's tensors to those in a checkpoint. File: Checkpoint, or another type with
/// tensors(), find(), path() and drop(), for whose tensors (with name, shape and data) there are
/// read_floats and same_numbers, and maybe copy_row, which sets a row of a TensorRef without a detour
/// through floats, or returns false.
template <class File>
class CheckpointMap {
 public:
  using Tensor = typename std::remove_cvref_t<decltype(std::declval<File>().tensors())>::value_type;

  [[gnu::cold]] CheckpointMap(const File& file, const CheckpointFormat& format,
                              std::vector<BranchInfo> branches, bool tied)
      : file_(file),
        naming_(format, std::move(branches)),
        tied_(tied),
        used_(file_.tensors().size()) {}

  const CheckpointNaming& naming() const { return naming_; }

  /// The tensor of this name, or null. A tied matrix may have either name.
  const Tensor* find(std::string_view name) const {
    const Tensor* found = file_.find(name);
    return !found && tied_ && name == naming_.embedding() ? file_.find(naming_.head()) : found;
  }

  /// Records any errors in the parts of a tensor.
  [[gnu::cold]] void check_tensor(const TensorInfo& tensor) {
    naming_.parts(tensor, [&](const NamedRows& part) __attribute__((cold)) {
      if (part.file_row > 0) return;  // another part of the same tensor in the file
      Shape shape = tensor.shape;
      shape[0] = part.file_rows;
      const Tensor* found = find(part.name);
      if (!found)
        return missing_.add(join({part.name, " ", shape, " of ", naming_.owner(tensor.branch)}));
      used_[static_cast<std::size_t>(found - file_.tensors().data())] = true;
      if (found->shape != shape)
        shapes_.add(join({part.name, ": expected ", shape, " by ", naming_.owner(tensor.branch),
                          ", found ", found->shape}));
    });
  }

  /// Throws with all errors, once every tensor has been checked.
  [[gnu::cold]] void check_all(const std::string& structure) {
    const Tensor *embedding = file_.find(naming_.embedding()), *head = file_.find(naming_.head());
    Lines unexpected{"unexpected"};
    for (std::size_t i = 0; i < used_.size(); ++i) {
      const Tensor& tensor = file_.tensors()[i];
      if (!used_[i] && !(tied_ && &tensor == head) && tensor.name != naming_.no_weights())
        unexpected.add(join({tensor.name, " ", tensor.shape}));
    }
    if (missing_.count + unexpected.count + shapes_.count > 0)
      fail({file_.path(), ": the checkpoint does not fit the model ", structure, missing_.text(),
            unexpected.text(), shapes_.text()});
    if (!tied_ || !head || !embedding) return;
    if (!same_numbers(*head, *embedding))
      fail({file_.path(), ": the model ties head and embedding, but ", head->name, " and ",
            embedding->name, " differ"});
    file_.drop(head->data);
  }

 private:
  /// Lines of a message under a title, which gives their number; only the first 20 are listed.
  struct Lines {
    const char* title;
    std::size_t count = 0;
    std::string lines = {};

    [[gnu::cold]] void add(const std::string& line) {
      if (++count <= 20) append(lines, {"\n    ", line});
    }
    [[gnu::cold]] std::string text() const {
      if (count == 0) return "";
      const std::string more = count > 20 ? join({"\n    and ", count - 20, " more"}) : "";
      return join({"\n  ", title, " (", count, "):", lines, more});
    }
  };

  const File& file_;
  CheckpointNaming naming_;
  bool tied_;
  std::vector<char> used_;  // for each of file_.tensors()
  Lines missing_{"missing"}, shapes_{"wrong shape"};
};

/// Rows [row, row + rows) of a tensor, and where they are in a file.
template <class Tensor>
struct LoadedRows {
  std::size_t tensor;
  const Tensor* stored;
  std::int64_t row, rows, file_row, file_step;

  std::int64_t stored_row(std::int64_t i) const { return file_row + i * file_step; }
  /// The bytes of row stored_row(i).
  std::span<const std::byte> bytes(std::int64_t i) const {
    const std::size_t size = stored->data.size() / static_cast<std::size_t>(stored->shape[0]);
    return stored->data.subspan(static_cast<std::size_t>(stored_row(i)) * size, size);
  }
};

/// Drops what one thread reads of a mapped file, a megabyte at a time: otherwise the whole file would
/// be in memory beside the weights. Other threads may read bytes in between, see MappedFile::drop.
template <class File>
class DropBehind {
 public:
  explicit DropBehind(const File& file) : file_(file) {}
  DropBehind(const DropBehind&) = delete;
  DropBehind& operator=(const DropBehind&) = delete;
  ~DropBehind() { drop(); }

  /// These bytes are read now; those before are dropped if they are far from them or many.
  void add(std::span<const std::byte> part) {
    const auto begin = reinterpret_cast<std::uintptr_t>(part.data()), end = begin + part.size();
    const std::uintptr_t first = (std::min)(begin, begin_), last = (std::max)(end, end_);
    const bool apart = last - first > (1 << 20);
    if (apart) drop();
    begin_ = apart ? begin : first;
    end_ = apart ? end : last;
  }

 private:
  void drop() const {
    if (begin_ < end_) file_.drop({reinterpret_cast<const std::byte*>(begin_), end_ - begin_});
  }

  const File& file_;
  std::uintptr_t begin_ = UINTPTR_MAX, end_ = 0;
};

/// The index of the first number of a row that is not finite, or its size.
template <class R>
std::size_t first_not_finite(std::span<const R> row) {
  std::size_t k = 0;
  while (k < row.size() && is_finite(static_cast<float>(row[k]))) ++k;
  return k;
}

/// One thread's part of loading: reads its share of the rows of every piece through `values`, which
/// has room for the longest row. Returns the index of the first piece with a number that is not
/// finite, or the number of pieces.
template <class R, class File, class Tensor>
[[gnu::cold]] std::size_t load_rows(const Team& team, const File& file,
                                    const std::vector<TensorRef<R>>& tensors,
                                    const std::vector<LoadedRows<Tensor>>& pieces, R* values) {
  DropBehind behind(file);
  for (std::size_t i = 0; i < pieces.size(); ++i) {
    const LoadedRows<Tensor>& piece = pieces[i];
    const TensorRef<R>& tensor = tensors[piece.tensor];
    const std::span row(values, static_cast<std::size_t>(tensor.row_size));
    const Range share = team.share(piece.rows, panel_width);
    for (std::int64_t r = share.begin; r < share.end; ++r) {
      behind.add(piece.bytes(r));
      if constexpr (requires { copy_row(*piece.stored, r, tensor, r); })
        if (copy_row(*piece.stored, piece.stored_row(r), tensor, piece.row + r)) continue;
      read_floats(*piece.stored, piece.stored_row(r) * tensor.row_size, row);
      if (first_not_finite<R>(row) < row.size()) return i;
      tensor.set_row(piece.row + r, values);
    }
  }
  return pieces.size();
}

/// Fills the tensors from a checkpoint, on all threads that OpenMP provides.
template <class R, class File>
[[gnu::cold]] void load_tensors(const File& file, const CheckpointFormat& format,
                                const std::string& structure, std::vector<BranchInfo> branches,
                                bool tied, const std::vector<TensorRef<R>>& tensors) {
  using Tensor = typename CheckpointMap<File>::Tensor;
  CheckpointMap<File> map(file, format, std::move(branches), tied);
  for (const TensorRef<R>& tensor : tensors) map.check_tensor(tensor);
  map.check_all(structure);

  std::vector<LoadedRows<Tensor>> pieces;
  std::size_t longest = 0;
  const auto refuse = [&](const Tensor& stored, std::int64_t element) {
    fail({file.path(), ": tensor ", stored.name, ": element ", element, " is not finite"});
  };
  for (std::size_t i = 0; i < tensors.size(); ++i) {
    const TensorRef<R>& tensor = tensors[i];
    const bool vector = tensor.shape.size() == 1;  // one row, whose parts count elements
    // Of a vector, which may be spread over several tensors in the file.
    const auto size = vector ? static_cast<std::size_t>(tensor.row_size) : 0;
    const auto values = std::make_unique<R[]>(size);
    longest = (std::max)(longest, static_cast<std::size_t>(tensor.row_size));
    map.naming().parts(tensor, [&](const NamedRows& part) __attribute__((cold)) {
      const Tensor& stored = *map.find(part.name);
      read_floats(stored, 0, std::span<R>{});  // throws if the dtype is not a floating-point type
      const LoadedRows<Tensor> piece{i,         &stored,       part.row,
                                     part.rows, part.file_row, part.file_step};
      if (!vector) return pieces.push_back(piece);
      for (std::int64_t k = 0; k < part.rows; ++k) {
        const std::span<R> one(values.get() + part.row + k, 1);
        read_floats(stored, piece.stored_row(k), one);
        if (first_not_finite<R>(one) == 0) refuse(stored, piece.stored_row(k));
        one[0] += static_cast<R>(part.add);
      }
    });
    if (vector) tensor.set_row(0, values.get());
  }

  const int threads = usable_threads(0);
  const auto values = std::make_unique<R[]>(longest * static_cast<std::size_t>(threads));
  std::atomic<std::size_t> bad{pieces.size()};  // the first bad piece found by any thread
  parallel(threads, [&](const Team& team) {
    R* const own = values.get() + static_cast<std::size_t>(team.rank) * longest;
    const std::size_t found = load_rows(team, file, tensors, pieces, own);
    for (std::size_t known = bad; found < known && !bad.compare_exchange_weak(known, found);) {}
  });
  if (bad == pieces.size()) return;
  const LoadedRows<Tensor>& piece = pieces[bad];
  const std::int64_t size = tensors[piece.tensor].row_size;
  const std::span row(values.get(), static_cast<std::size_t>(size));
  for (std::int64_t r = 0; r < piece.rows; ++r) {
    read_floats(*piece.stored, piece.stored_row(r) * size, row);
    if (const std::size_t k = first_not_finite<R>(row); k < row.size())
      refuse(*piece.stored, piece.stored_row(r) * size + static_cast<std::int64_t>(k));
  }
}

/// Fills the tensors from the checkpoint at a path, whatever its format.
template <class R>
[[gnu::cold]] void load_tensors(const std::string& path, const std::string& structure,
                                std::vector<BranchInfo> branches, bool tied,
                                const std::vector<TensorRef<R>>& tensors) {
  const Checkpoint file = open_checkpoint(path);
  load_tensors(file, format_of(file), structure, std::move(branches), tied, tensors);
}

/// The bytes of a vector's elements. (A span of a vector costs every program compile time.)
template <class X>
std::span<const std::byte> bytes_of(const std::vector<X>& x) {
  return {reinterpret_cast<const std::byte*>(x.data()), x.size() * sizeof(X)};
}

template <class To, class From>
std::vector<To> rounded(const std::vector<From>& x) {
  std::vector<To> result(x.size());
  for (std::size_t i = 0; i < x.size(); ++i) result[i] = To(x[i]);
  return result;
}

/// A tensor of a file, and the rows of the model's tensors that it has; of a vector, the elements.
template <class R>
struct SavedTensor {
  struct Row {
    const TensorRef<R>* tensor;
    std::int64_t row;
  };
  int branch;
  std::string name;
  Dtype dtype;
  Shape shape;
  std::vector<Row> rows = {};
};

/// The tensors of a file in a format, in the order of their first parts.
template <class R>
[[gnu::cold]] std::vector<SavedTensor<R>> saved_tensors(const CheckpointNaming& naming,
                                                        const std::vector<TensorRef<R>>& tensors,
                                                        Dtype dtype) {
  std::vector<SavedTensor<R>> saved;
  for (const TensorRef<R>& tensor : tensors)
    naming.parts(tensor, [&](const NamedRows& part) __attribute__((cold)) {
      auto same = saved.rbegin();  // the parts of a tensor are of one branch
      while (same != saved.rend() && same->branch == tensor.branch && same->name != part.name)
        ++same;
      if (same == saved.rend() || same->branch != tensor.branch) {
        const bool rounds = dtype == Dtype::bf16 && !tensor.is_matrix;
        saved.push_back({tensor.branch, part.name, rounds ? Dtype::f32 : dtype, tensor.shape});
        saved.back().shape[0] = part.file_rows;
        saved.back().rows.resize(static_cast<std::size_t>(part.file_rows));
        same = saved.rbegin();
      }
      for (std::int64_t i = 0; i < part.rows; ++i) {
        const std::int64_t to = part.file_row + i * part.file_step;
        same->rows[static_cast<std::size_t>(to)] = {&tensor, part.row + i};
      }
    });
  return saved;
}

/// Writes the next values of a tensor that was declared as `dtype`: f32, f64 or bf16.
template <class R>
[[gnu::cold]] void write_values(SafetensorsWriter& writer, const std::string& name,
                                const std::vector<R>& values, Dtype dtype) {
  if (dtype == Dtype::bf16)
    writer.write(name, bytes_of(rounded<bf16>(rounded<float>(values))));
  else if (dtype == dtype_of<R>)
    writer.write(name, bytes_of(values));
  else
    writer.write(name, bytes_of(rounded<float>(values)));
}

/// Writes all of a tensor.
template <class R>
[[gnu::cold]] void write_rows(SafetensorsWriter& writer, const std::string& name,
                              const TensorRef<R>& tensor, Dtype dtype) {
  std::vector<R> row(static_cast<std::size_t>(tensor.row_size));
  for (std::int64_t r = 0; r < tensor.rows; ++r) {
    tensor.get_row(r, row.data());
    write_values(writer, name, row, dtype);
  }
}
template <class R>
[[gnu::cold]] void write_rows(SafetensorsWriter& writer, const SavedTensor<R>& tensor) {
  const bool vector = tensor.shape.size() == 1;
  const TensorRef<R>* last = nullptr;
  std::vector<R> row, elements;
  for (const auto& [from, r] : tensor.rows) {
    if (!vector || from != last) {
      row.resize(static_cast<std::size_t>(from->row_size));
      from->get_row(vector ? 0 : r, row.data());
    }
    last = from;
    if (vector)
      elements.push_back(row[static_cast<std::size_t>(r)]);
    else
      write_values(writer, tensor.name, row, tensor.dtype);
  }
  if (vector) write_values(writer, tensor.name, elements, tensor.dtype);
}

/// Throws what save_tensors() throws before it writes.
template <class R>
[[gnu::cold]] void check_save(const std::string& path, const std::string& structure,
                              const CheckpointNaming& naming,
                              const std::vector<TensorRef<R>>& tensors, Dtype dtype) {
  if (dtype != Dtype::f32 && dtype != Dtype::bf16 && dtype != dtype_of<R>)
    fail({path, ": save: expected dtype F32 or BF16", std::is_same_v<R, double> ? " or F64" : "",
          ", found ", dtype_name(dtype)});
  const std::string who = path + ": save";
  naming.check_branches(who, structure);
  for (const TensorRef<R>& tensor : tensors) naming.check_name(who, structure, tensor);
}

template <class R>
[[gnu::cold]] void save_tensors(const std::string& path, const std::string& structure,
                                const CheckpointNaming& naming,
                                const std::vector<TensorRef<R>>& tensors, Dtype dtype) {
  check_save(path, structure, naming, tensors, dtype);
  const std::vector<SavedTensor<R>> saved = saved_tensors(naming, tensors, dtype);
  SafetensorsWriter writer(path, {{"format", "pt"}});
  for (const SavedTensor<R>& tensor : saved)
    writer.declare(tensor.name, tensor.dtype, tensor.shape);
  for (const SavedTensor<R>& tensor : saved) write_rows(writer, tensor);
  writer.finish();
}

}  // namespace detail

/// The format of the checkpoint at `path`, by the names of its tensors.
[[gnu::cold]] inline const CheckpointFormat& checkpoint_format(const std::string& path) {
  return detail::format_of(detail::open_checkpoint(path));
}

/// The format that is called `name`: samba, fla, llama, gemma2, recurrent_gemma, phi3, mamba or
/// original_mamba. Throws Error, beginning with `who`, if there is none.
[[gnu::cold]] inline const CheckpointFormat& format_by_name(std::string_view who,
                                                            std::string_view name) {
  std::string all;
  for (const CheckpointFormat* format : detail::all_formats) {
    if (format->name == name) return *format;
    detail::append(all, {all.empty() ? "" : ", ", format->name});
  }
  fail({who, ": expected one of ", all, ", found ", Quoted{name}});
}

/// Reads the weights of a Model from a checkpoint: a .safetensors file, a *.safetensors.index.json,
/// or a folder with model.safetensors or model.safetensors.index.json. Tensors may be float32,
/// bfloat16, float16 or float64, under the names of the public Samba code, of fla's Samba or of
/// transformers' Llama, Mistral, Phi-3, Qwen 3, Gemma 1 to 3, RecurrentGemma and Mamba, or of the original Mamba; a tied head may be stored
/// once or twice.
///
/// If the file does not fit the type, throws Error before reading any weight, with all missing and
/// unexpected tensors and wrong shapes in one message. Also throws if a value is not finite.
template <class Model, class T = float>
Weights<Model, T> load(const std::string& path) {
  Weights<Model, T> weights;
  detail::load_tensors(path, structure<Model>(), branches<Model>(), Model::tie_embeddings,
                       weights.tensors());
  weights.derive();
  return weights;
}

struct SaveOptions {
  /// f32; or bf16, which rounds matrices and embeddings and keeps the other tensors (norms, biases,
  /// convolutions, A_log, D) in float32; for weights in double also f64.
  Dtype dtype = Dtype::f32;
  /// The names and the layout of the tensors, those of the public Samba code or of another of
  /// `formats`. checkpoint_format() finds those of a file.
  CheckpointFormat names = formats::samba;
};

/// Writes weights as one safetensors file, which load() reads to the same bits if dtype is theirs. A
/// tied head is written once. An existing file is replaced only once everything is written.
///
/// Throws Error, before writing anything, if the format has no names for the model: with the first
/// branch, or the tensor, that does not fit.
template <class Model, class T>
void save(const Weights<Model, T>& weights, const std::string& path, const SaveOptions& options) {
  detail::save_tensors(path, structure<Model>(), {options.names, branches<Model>()},
                       weights.tensors(), options.dtype);
}

/// The same under the names of the public Samba code.
template <class Model, class T>
void save(const Weights<Model, T>& weights, const std::string& path, Dtype dtype = Dtype::f32) {
  save(weights, path, SaveOptions{.dtype = dtype});
}

/// Throws what save() would throw before it writes.
template <class Model, class T>
void check_save(const Weights<Model, T>& weights, const std::string& path,
                const SaveOptions& options) {
  detail::check_save(path, structure<Model>(), {options.names, branches<Model>()},
                     weights.tensors(), options.dtype);
}

}  // namespace samba::inline SAMBA_TARGET
