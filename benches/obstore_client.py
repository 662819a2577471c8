"""The peer of benches/against_obstore.py: puts one object in parts, as the engine does.

    obstore_client.py PORT SIZE PASSES      one JSON line a pass, after one unmeasured
"""

import json
import os
import resource
import sys
import time

import obstore
from obstore.store import S3Store

PART_BYTES = 16 << 20
THREADS = 4


def cpu():
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


def main():
    port, size_bytes, passes = (int(word) for word in sys.argv[1:4])
    data = os.urandom(1 << 20) * (size_bytes >> 20)
    store = S3Store(
        "bucket", endpoint=f"http://127.0.0.1:{port}", region="us-east-1", access_key_id="key",
        secret_access_key="secret", virtual_hosted_style_request=False, unsigned_payload=True,
        client_options={"allow_http": True})
    for turn in range(passes + 1):
        before, started = cpu(), time.perf_counter()
        obstore.put(store, "key", data, use_multipart=True, chunk_size=PART_BYTES, max_concurrency=THREADS)
        seconds, used = time.perf_counter() - started, cpu() - before
        if turn:
            peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
            print(json.dumps({"client": f"obstore {obstore.__version__}", "mib_per_s": len(data) / (1 << 20) / seconds,
                              "cpu_s_per_gb": used / (len(data) / 1e9), "peak_mib": peak}), flush=True)


if __name__ == "__main__":
    main()
