"""Ctrl-C, and the stop button of a notebook, while a server works on the next rows.

The driver waits for rows where Python cannot be interrupted. So another thread waits there, and this one for that thread; an interrupt
cancels the query on the server, which ends the other's waiting.
"""

import concurrent.futures
import threading

# How often is looked for an interrupt; rows that arrive are taken at once.
LOOK_SECONDS = 0.2


def batches(reader, cancel):
    """The batches of a reader. `cancel` is called on an interrupt, in another thread than the reading one; it must end the reading."""
    if threading.current_thread() is not threading.main_thread():
        # Interrupts reach the main thread alone.
        yield from reader
        return
    with concurrent.futures.ThreadPoolExecutor(max_workers=1, thread_name_prefix="bowshot-rows") as waiting:
        while True:
            upcoming = waiting.submit(_next, reader)
            try:
                # An interrupt that another thread takes does not wake this one by itself.
                while not concurrent.futures.wait([upcoming], timeout=LOOK_SECONDS).done:
                    pass
            except KeyboardInterrupt:
                cancel()
                raise
            batch = upcoming.result()
            if batch is None:
                return
            yield batch


def _next(reader):
    try:
        return reader.read_next_batch()
    except StopIteration:
        # A future cannot carry it.
        return None
