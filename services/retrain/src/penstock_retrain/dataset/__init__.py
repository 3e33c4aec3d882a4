"""What is trained on: collected from the log, selected by a policy, split and written.

`penstock_retrain.dataset.collector.Collector` keeps admitted requests, responses and feedback as
Parquet; `penstock_retrain.dataset.building.select_dataset` makes a dataset of them, whose digest,
offsets and parameters say where each row came from.
"""
