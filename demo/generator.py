"""The face generator: MobileStyleGAN from the `random-face` wheel, opened to one style per layer.

The wheel hands the same style to all layers of its synthesis network. Moving a mouth without moving the hair needs a
style per layer, so the graph is rewired when it is read; with equal rows the picture is the original's, to the bit. The
noise is baked into the weights: one style, one picture. Nothing of the wheel is imported, only its data files are read.
"""

from pathlib import Path

import cv2
import numpy as np

WEIGHTS = (
    "random_face_mapping_xml",
    "random_face_mapping_bin",
    "random_face_synthesis_xml",
    "random_face_synthesis_bin",
)
STYLE_DIM = 512
LAYERS = 23
IMAGE_SIZE = 1024
TRUNCATION = 0.7  # psi: how far a face may be from the mean face; 1 gives odd pictures, 0 always the same one
MEAN_SEEDS = range(1_000_000, 1_004_096)


class Generator:
    """The mapping and synthesis networks on the CPU with OpenVINO, float32."""

    def __init__(self, mapping_xml: Path, mapping_bin: Path, synthesis_xml: Path, synthesis_bin: Path):
        import openvino

        core = openvino.Core()
        settings = {"INFERENCE_NUM_THREADS": 1, "INFERENCE_PRECISION_HINT": "f32", "NUM_STREAMS": 1}
        self._mapping = core.compile_model(core.read_model(mapping_xml, mapping_bin), "CPU", settings)
        self._synthesis = core.compile_model(
            _open_layers(core.read_model(synthesis_xml, synthesis_bin)), "CPU", settings
        )

    def style(self, seed: int) -> np.ndarray:
        """The style of one seed before truncation: [512] float32."""
        latent = np.random.RandomState(seed).randn(1, STYLE_DIM).astype(np.float32)
        return self._mapping(latent)[0][0].copy()

    def mean_style(self) -> np.ndarray:
        """The style of the mean face, over 4096 fixed seeds: [512] float32."""
        return np.stack([self.style(seed) for seed in MEAN_SEEDS]).mean(0, dtype=np.float64).astype(np.float32)

    def render(self, styles: np.ndarray) -> np.ndarray:
        """The face of one style [512], or of one style per layer [23, 512]: [1024, 1024, 3] uint8 RGB."""
        per_layer = np.ascontiguousarray(np.broadcast_to(styles, (LAYERS, STYLE_DIM)), dtype=np.float32)
        image = self._synthesis(per_layer)[0][0]
        return (np.clip(image * 0.5 + 0.5, 0, 1) * 255 + 0.5).astype(np.uint8).transpose(1, 2, 0).copy()


def truncate(style: np.ndarray, mean_style: np.ndarray) -> np.ndarray:
    """A style pulled towards the mean face."""
    return mean_style + TRUNCATION * (style - mean_style)


def half_size(image: np.ndarray) -> np.ndarray:
    """The picture at 512 px, where landmarks are measured."""
    return cv2.resize(image, (IMAGE_SIZE // 2, IMAGE_SIZE // 2), interpolation=cv2.INTER_AREA)


def _open_layers(model):
    """The synthesis graph with a parameter [23, 512]: row i feeds the i-th layer, from 4 px to the output."""
    import openvino
    from openvino import opset13 as ops

    old = model.get_parameters()[0]
    users = {target.get_node().get_friendly_name(): target for target in old.output(0).get_target_inputs()}
    # "Gemm_210/WithoutBiases" is a layer; its number gives the order. The one other user only asks for the shape.
    layers = sorted((name for name in users if name.startswith("Gemm_")), key=lambda name: int(name[5:].split("/")[0]))
    if len(layers) != LAYERS:
        raise ValueError(
            f"synthesis network has {len(layers)} style inputs, expected {LAYERS}; is this random-face 2021.7.21.1?"
        )
    styles = ops.parameter([LAYERS, STYLE_DIM], np.float32, name="styles")
    rows = [ops.gather(styles, np.array([i], np.int64), np.int64(0)) for i in range(LAYERS)]
    for row, name in zip(rows, layers, strict=True):
        users.pop(name).replace_source_output(row.output(0))
    for other in users.values():
        other.replace_source_output(rows[0].output(0))
    return openvino.Model(model.get_results(), [styles], "faces")  # pyright: ignore[reportGeneralTypeIssues] its own stubs disagree
