"""Serving: OpenAI's transcription API, live speech and a page with a microphone, over any trained or exported model.

One process speaks HTTP and never decodes or computes. Small processes with limits decode the uploads (`decode_process`); one
process for each device holds the models (`model_process`). `dispatcher` joins them.
"""
