"""drive_cupy.py SOURCE ROWS RUNS: runs the kernels of q6_q1.cu through cupy, where there is no nvcc.

Prints what the program itself prints: a JSON array of {"query", "seconds", "device_seconds", "rows", "bytes", "ok"}; or {"missing": why}.
"""

import json
import sys
import time

THREADS = 128
# Bytes of the columns that a query reads, for each row.
ROW_BYTES = {"q6": 8, "q1": 11}


def measure(cupy, source, rows, runs):
    module = cupy.RawModule(code=source, options=("-DKERNELS_ONLY",))
    multiprocessors = cupy.cuda.Device().attributes["MultiProcessorCount"]
    widths = {"ship": "u2", "discount": "u1", "quantity": "u1", "tax": "u1", "price": "u4", "flag": "u1", "status": "u1"}
    columns = {name: cupy.empty(rows, dtype=width) for name, width in widths.items()}
    everything = tuple(columns.values())
    sums = cupy.zeros(37, dtype="u8")

    def launch(kernel, blocks, arguments):
        module.get_function(kernel)((blocks,), (THREADS,), arguments)

    length = cupy.uint64(rows)
    launch("fill", 16 * multiprocessors, (*everything, length))
    launch("plain", 16 * multiprocessors, (*everything, length, sums))
    expected = cupy.asnumpy(sums)
    read_by_q6 = tuple(columns[name] for name in ("ship", "discount", "quantity", "price"))
    queries = {"q6": (16, read_by_q6, expected[36:]), "q1": (6, everything, expected[:36])}
    rows_of_answer = []
    for query, (blocks, arguments, right) in queries.items():
        best, device_best, ok = float("inf"), float("inf"), True
        begin, end = cupy.cuda.Event(), cupy.cuda.Event()
        # The first run compiles and warms.
        for run in range(runs + 1):
            started = time.perf_counter()
            sums.fill(0)
            begin.record()
            launch(query, blocks * multiprocessors, (*arguments, length, sums))
            end.record()
            given = cupy.asnumpy(sums)[: len(right)]
            seconds = time.perf_counter() - started
            if run > 0:
                best = min(best, seconds)
                device_best = min(device_best, cupy.cuda.get_elapsed_time(begin, end) / 1e3)
            ok = ok and bool((given == right).all())
        figures = {"seconds": best, "device_seconds": device_best, "rows": rows, "bytes": rows * ROW_BYTES[query]}
        rows_of_answer.append({"query": query, **figures, "ok": ok})
    return rows_of_answer


def main():
    source, rows, runs = sys.argv[1], int(sys.argv[2]) // 4 * 4, int(sys.argv[3])
    try:
        import cupy
    except ImportError as error:
        print(json.dumps({"missing": str(error)}))
        return
    with open(source) as text:
        print(json.dumps(measure(cupy, text.read(), rows, runs)))


if __name__ == "__main__":
    main()
