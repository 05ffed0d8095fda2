"""The face generator: MobileStyleGAN from the `random-face` wheel, opened to one style per layer.

The wheel hands the same style to all layers of its synthesis network. Moving a mouth without moving the hair needs a
style per layer, so the graph is rewired when it is read; with equal rows the picture is the original's, but for
rounding. The noise is baked into the weights: one style, one picture. A second graph draws nothing but the place where
faces are, in half the time: from 64 px on its layers are cut to it. Nothing of the wheel is imported, only its data
files are read.
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
# Rows and columns of the picture that `render_face` draws. Around them it computes, and throws away, what convolutions
# at the border of the cut get wrong: MARGIN pixels, but for the lower edge, which is the picture's own.
FACE = np.s_[304:1024, 192:832]
MARGIN = 32
CUT_AT = 64  # pixels of the layer from which on only the face is computed
MEAN_SEEDS = range(1_000_000, 1_004_096)


class Generator:
    """The mapping and synthesis networks on the CPU with OpenVINO, float32."""

    def __init__(self, mapping_xml: Path, mapping_bin: Path, synthesis_xml: Path, synthesis_bin: Path):
        import openvino

        core = openvino.Core()
        settings = {"INFERENCE_NUM_THREADS": 1, "INFERENCE_PRECISION_HINT": "f32", "NUM_STREAMS": 1}
        self._mapping = core.compile_model(core.read_model(mapping_xml, mapping_bin), "CPU", settings)
        models = [core.read_model(synthesis_xml, synthesis_bin) for _ in range(2)]
        network, cut = (_join_wavelets(_open_layers(model)) for model in models)
        self._synthesis = core.compile_model(network, "CPU", settings)
        self._face = core.compile_model(_cut_to_face(cut), "CPU", settings)

    def style(self, seed: int) -> np.ndarray:
        """The style of one seed before truncation: [512] float32."""
        latent = np.random.RandomState(seed).randn(1, STYLE_DIM).astype(np.float32)
        return self._mapping(latent)[0][0].copy()

    def mean_style(self) -> np.ndarray:
        """The style of the mean face, over 4096 fixed seeds: [512] float32."""
        return np.stack([self.style(seed) for seed in MEAN_SEEDS]).mean(0, dtype=np.float64).astype(np.float32)

    def render(self, styles: np.ndarray) -> np.ndarray:
        """The face of one style [512], or of one style per layer [23, 512]: [1024, 1024, 3] uint8 RGB."""
        return _to_picture(self._synthesis(_per_layer(styles))[0][0])

    def render_face(self, styles: np.ndarray) -> np.ndarray:
        """What `render` gives at FACE, and only that: [720, 640, 3] uint8 RGB."""
        return _to_picture(self._face(_per_layer(styles))[0][0][:, MARGIN:, MARGIN:-MARGIN])


def _per_layer(styles: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(np.broadcast_to(styles, (LAYERS, STYLE_DIM)), dtype=np.float32)


def _to_picture(image: np.ndarray) -> np.ndarray:
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


def _join_wavelets(model):
    """The graph with each of its inverse wavelet transforms, 14 operations, written as two: it is an eighth faster."""
    from openvino import opset13 as ops

    for node in model.get_ordered_ops():
        if not _splits_bands(node):
            continue
        bands = node.input_value(0)
        last = node
        for _ in ("rows", "add", "columns", "add"):  # the operations between the first band and the picture
            last = next(iter(last.output(0).get_target_inputs())).get_node()
        if last.get_type_name() != "Add":
            raise ValueError(f"{node.get_friendly_name()}: not the wavelet transform of random-face 2021.7.21.1")
        users = list(last.output(0).get_target_inputs())
        weights = haar_weights(bands.get_partial_shape().to_shape()[1] // 4)
        mixed = ops.convolution(bands, ops.constant(weights[..., None, None]), [1, 1], [0, 0], [0, 0], [1, 1])
        joined = ops.depth_to_space(mixed, "blocks_first", 2)
        for user in users:
            user.replace_source_output(joined.output(0))
    model.validate_nodes_and_infer_types()
    return model


def _splits_bands(node) -> bool:
    """Whether this operation takes the smooth band of a wavelet away from the three others."""
    return node.get_type_name() == "VariadicSplit" and len(node.input_value(0).get_partial_shape()) == len("NCHW")


def haar_weights(channels: int) -> np.ndarray:
    """What makes the pixels of each 2x2 block of their four wavelet bands: [4 channels out, 4 channels in] float32.

    In: all smooth bands, then three details of each channel. Out: all upper left pixels, upper right, lower left, ...
    """
    weights = np.zeros((2, 2, channels, 4 * channels), np.float32)
    c = np.arange(channels)
    for row, column in np.ndindex(2, 2):
        down, right = 1 - 2 * row, 1 - 2 * column
        weights[row, column, c, c] = 0.5
        for k, sign in enumerate((down, right, down * right)):
            weights[row, column, c, channels + 3 * c + k] = 0.5 * sign
    return weights.reshape(4 * channels, 4 * channels)


def _cut_to_face(model):
    """The graph with every layer from CUT_AT pixels on cut to FACE and its margin."""
    from openvino import opset13 as ops

    rows, columns = FACE
    box = rows.start - MARGIN, rows.stop, columns.start - MARGIN, columns.stop + MARGIN
    outputs = [node.output(0) for node in model.get_ordered_ops() if node.get_output_size()]
    shapes = [list(output.get_partial_shape().to_shape()) for output in outputs]
    noise = [
        o for o, shape in zip(outputs, shapes, strict=True) if shape[:2] == [1, 1] and shape[2:] > [CUT_AT, CUT_AT]
    ]
    features = [o for o, shape in zip(outputs, shapes, strict=True) if shape[2:] == [CUT_AT, CUT_AT] and shape[1] > 1]
    for whole in (features[-1], *noise):
        top, bottom, left, right = (edge * whole.get_partial_shape().to_shape()[2] // IMAGE_SIZE for edge in box)
        users = list(whole.get_target_inputs())
        part = ops.slice(whole, np.array([top, left]), np.array([bottom, right]), np.array([1, 1]), np.array([2, 3]))
        for user in users:
            user.replace_source_output(part.output(0))
    model.validate_nodes_and_infer_types()
    return model
