"""safetensors without torch: what a Python program does with its arrays."""

import numpy
import safetensors
from safetensors.numpy import load_file, save_file

from common import job_of_arguments, lead, fsync, fsync_folder


def main():
    job = job_of_arguments()
    array = numpy.frombuffer(job.data(), dtype=numpy.float32)

    def save(name):
        save_file({"state": array}, job.path(name))
        fsync(job.path(name))

    def load(name):
        if load_file(job.path(name))["state"].nbytes != job.object_bytes:
            raise SystemExit(f"{name} is short")

    def write():
        job.each(save)
        fsync_folder(job.folder)

    if job.work == "write":
        lead(job.clear, write, safetensors.__version__)
    else:
        job.each(save)
        lead(job.drop_cache, lambda: job.each(load), safetensors.__version__)


if __name__ == "__main__":
    main()
