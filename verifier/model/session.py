"""onnxruntime sessions: one thread, silent, from bytes."""

from __future__ import annotations

from pathlib import Path

import onnxruntime

_SILENT = 4
_FOLDER_KEY = "session.model_external_initializers_file_folder_path"


def open_session(
    model: bytes, folder: Path | None = None, threads: int = 1, optimise: bool = True
) -> onnxruntime.InferenceSession:
    """A CPU session for the bytes of a model.

    folder: where its external data lie.  optimise: onnxruntime's default graph optimisations.
    Raises what onnxruntime raises: classes of its own, derived from Exception.
    """
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = threads
    options.log_severity_level = _SILENT
    if not optimise:
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    if folder is not None:
        options.add_session_config_entry(_FOLDER_KEY, str(folder.resolve()))
    # Without enable_fallback=False a failure is printed to the terminal and tried a second time.
    return onnxruntime.InferenceSession(model, options, ["CPUExecutionProvider"], enable_fallback=False)
