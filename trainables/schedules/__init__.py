"""Schedules: which snapshot of the teachers is active when; one file each."""
