#!/usr/bin/env python3
"""Plots of the benchmarks' tables. Without matplotlib they are skipped: status 77."""
import csv
import pathlib
import sys
import tempfile
import unittest
import unittest.mock

ROOT = pathlib.Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "benchmarks"))
import plots  # noqa: E402

BENCH = [{"row": f"{kernel}/{variant}/{size}", "threads": threads, "time_over_floor": ratio}
         for kernel in ("matmul_backward", "cross_entropy") for size in ("demo/1x768x256", "samba421m/512x4096x1536")
         for variant, threads, ratio in (("raw_loop", 1, 9.5), ("reference", 1, 1234.5), ("simd_bf16", 1, 0.87),
                                         ("simd_bf16", 2, 1.2))]
BENCH.insert(0, {"row": "ceilings/f32", "threads": 1, "time_over_floor": ""})
PEERS = [{"comparison": name, "with": who, "samba_tokens_per_s": tokens, "samba_time_over_floor": 1.25,
          "other_time_over_floor": 14.3}
         for name, who, tokens in (("attention, 4096 tokens, window 2048, bf16", "PyTorch", ""),
                                   ("prefill of 512 tokens, bf16 *", "llama.cpp", "1026"),
                                   ("training step, Samba-20M, f32, oneDNN", "PyTorch", "1100"))]
# Two points at one place, two roofs at nearly one height, and one point above its roof.
ROOFLINE = [{"layer": layer, "type": type, "size": f"samba421m/{size}", "threads": threads, "flops_per_byte": intensity,
             "gflop_per_s": rate, "of_ceiling": 0.75, "source": source, "ceiling_gb_per_s": slope,
             "ceiling_gflop_per_s": roof}
            for layer in ("mamba", "swa", "prefill") for threads in (1, 2)
            for type, size, intensity, rate, source, slope, roof in (
                ("f32", "1_at_4096", 0.5, 30, "memory", 84, 280), ("bf16", "1_at_4096", 1, 90, "memory", 84, 284),
                ("f32", "512_at_0", 120, 200, "read 1 MiB", 190, 280))]


class Plots(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = pathlib.Path(folder.name)

    def svg(self, rows):
        table = self.folder / "table.csv"
        with open(table, "w", newline="", encoding="utf-8") as file:
            out = csv.DictWriter(file, rows[0])
            out.writeheader()
            out.writerows(rows)
        with unittest.mock.patch("builtins.print"):
            plots.draw(table, self.folder / "plot.svg", "2 processors")
        return (self.folder / "plot.svg").read_text(encoding="utf-8").replace("\N{NO-BREAK SPACE}", " ")

    def figure(self, rows):
        with unittest.mock.patch.object(plots, "save", side_effect=plots.save) as save:
            self.svg(rows)
        return save.call_args[0][0]

    def test_what_is_written(self):
        for rows, words in [
                (BENCH, ["2 processors", ">matmul_backward<", "samba421m/512x4096x1536      raw_loop<", ">simd_bf16 x2<",
                         ">0.87<", ">1234<", ">simd, all threads<", "time over floor"]),
                (PEERS, ["2 processors", ">Kernels<", ">Training steps<", ">Models: Samba-421M", ">PyTorch<",
                         ">llama.cpp<", ">14.3<", "training step, Samba-20M, f32, oneDNN          samba<"]),
                (ROOFLINE, ["2 threads. 2 processors", "memory, 84 GB/s", "read 1 MiB, 190 GB/s", "f32, 280 GFLOP/s",
                            "bf16, 284 GFLOP/s", "9 prefill f32  samba421m/1_at_4096  75%<", "75%*<", ">swa<",
                            "FLOPs per byte"])]:
            text = self.svg(rows)
            for word in words:
                self.assertTrue(word in text, word)
            self.assertFalse("ceilings" in text)
            self.assertTrue(text == self.svg(rows), "the same table gives the same file")

    def test_nothing_is_cut_off(self):
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        for rows in BENCH, PEERS, ROOFLINE, ROOFLINE[:1]:
            figure = self.figure(rows)
            figure.draw_without_rendering()
            box = figure.get_tightbbox(FigureCanvasAgg(figure).get_renderer())
            width, height = figure.get_size_inches()
            self.assertGreaterEqual(min(box.y0, height - box.y1), 0, rows[-1])
            # Viewers set text up to a twentieth wider: a line of 40 characters by 10 points.
            self.assertGreaterEqual(min(box.x0, width - box.x1), 10 / 72, rows[-1])

    def test_labels_of_a_roofline_do_not_overlap(self):
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.text import Text
        figure = self.figure(ROOFLINE)
        figure.draw_without_rendering()
        renderer = FigureCanvasAgg(figure).get_renderer()
        boxes = [Text.get_window_extent(text, renderer) for text in figure.axes[0].texts
                 if text.get_text() and not text.get_rotation()]
        boxes.append(figure.axes[0].get_legend().get_window_extent(renderer))
        self.assertEqual(len(boxes), 9 + 2 + 1 + 1)  # points, roofs, the list, the legend
        for i, one in enumerate(boxes):
            self.assertEqual(one.count_overlaps(boxes[:i]), 0, i)

    def test_the_freest_place_is_taken(self):
        places = plots.Places()
        places.taken = [plots.box(0, 0, 4, 4)]
        candidates = [("over", [plots.box(1, 1, 4, 4)]), ("beside", [plots.box(5, 0, 4, 4)])]
        self.assertEqual(places.take(candidates), "beside")
        self.assertEqual(places.hits([plots.box(5, 0, 4, 4)]), 1)

    def test_a_table_of_something_else(self):
        with self.assertRaisesRegex(SystemExit, "no table of"):
            self.svg([{"step": 1}])

    def test_symbols_differ(self):
        self.assertEqual(len(set(plots.MARKERS)), len(plots.MARKERS))
        with self.assertRaisesRegex(SystemExit, "found 13 layers"):
            self.svg([{**ROOFLINE[0], "layer": str(i)} for i in range(13)])


if __name__ == "__main__":
    if plots.available():
        print(plots.available())
        sys.exit(77)
    unittest.main()
