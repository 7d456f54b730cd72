"""Long-lived servers outside of training: started, supervised, fed from one queue. For `generate` and `serve`."""
