"""One thread for each model server: it sends batches, hands results over, and passes cancellations on."""
