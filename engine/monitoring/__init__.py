"""What a run says about itself: metrics, TensorBoard, console, summary, report, and its waits."""
