"""Session options that keep ONNX Runtime to one thread: without them it takes all cores."""

import onnxruntime


def one_thread() -> onnxruntime.SessionOptions:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.inter_op_num_threads = 1
    return options
