"""How ONNX Runtime is told to keep to one thread: it heeds no environment variable, and takes all cores otherwise."""

import onnxruntime


def one_thread() -> onnxruntime.SessionOptions:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.inter_op_num_threads = 1
    return options
