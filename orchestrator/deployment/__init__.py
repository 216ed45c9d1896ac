"""Bring up a Ray cluster with MLflow and PostgreSQL, hand sweeps to it, and keep strangers out.

``orchestrator.cluster`` connects a driver to a cluster; this package is what makes one.
"""
