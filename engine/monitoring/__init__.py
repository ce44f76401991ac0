"""Record and show a run: metrics, TensorBoard, console, summary, report."""
