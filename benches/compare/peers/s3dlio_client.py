"""s3dlio, the library Syncline descends from. Ways: put (its put_bytes), writer (its streaming writers)."""

import os
from importlib.metadata import version

from common import fsync, fsync_folder, job_of_arguments, lead, lead_job

CHUNK_BYTES = 1 << 20
GET_AT_ONCE = 1000


def prepare(job):
    # Read when the library is loaded.
    os.environ.update(AWS_ENDPOINT_URL=job.endpoint, AWS_ACCESS_KEY_ID="key",
                      AWS_SECRET_ACCESS_KEY="secret", AWS_REGION="us-east-1",
                      # Without TLS it would hash each payload once more, which the others do not.
                      S3DLIO_UNSIGNED_PAYLOAD="1",
                      AZURE_STORAGE_ACCOUNT_NAME="account", AZURE_STORAGE_ACCOUNT_KEY="c2VjcmV0",
                      AZURE_STORAGE_ENDPOINT=f"{job.endpoint}/account")
    import s3dlio
    return s3dlio


def uri(job, name):
    if job.storage == "s3":
        return f"s3://bucket/{name}"
    if job.storage == "az":
        return f"az://account/container/{name}"
    return f"{job.storage}://{job.path(name)}"


def streaming(s3dlio, job, name):
    if job.storage == "s3":
        return s3dlio.MultipartUploadWriter.from_uri(
            uri(job, name), part_size=job.part_bytes, max_in_flight=job.threads)
    make = {"file": s3dlio.create_filesystem_writer, "direct": s3dlio.create_direct_filesystem_writer,
            "az": s3dlio.create_azure_writer}[job.storage]
    return make(uri(job, name))


def stream(s3dlio, job, name, data):
    writer = streaming(s3dlio, job, name)
    view = memoryview(data)
    put, close = (writer.write, writer.close) if job.storage == "s3" else (writer.write_chunk, writer.finalize)
    for start in range(0, len(view), CHUNK_BYTES):
        put(view[start:start + CHUNK_BYTES] if job.storage == "s3" else bytes(view[start:start + CHUNK_BYTES]))
    close()


def many(s3dlio, job):
    """Small objects: its own calls for many of them."""
    uris = [uri(job, name) for name in job.names()]
    if job.work == "read":
        if job.folder:
            from common import write_files
            write_files(job)

        def get():
            # As src/shards.rs: all that one call reads is in memory when it returns.
            for start in range(0, len(uris), GET_AT_ONCE):
                got = s3dlio.get_many(uris[start:start + GET_AT_ONCE])
                if any(len(data) != job.object_bytes for _, data in got):
                    raise SystemExit("an object is short")

        lead(job.drop_cache, get, version("s3dlio"))
        return
    data = job.data()

    def run():
        s3dlio.put_many([(each, data) for each in uris])
        if job.folder and job.way != "loose":
            # From as many threads as those of the other peers.
            job.each(lambda name: fsync(job.path(name)))
            fsync_folder(job.folder)

    lead(job.clear, run, version("s3dlio"))


def main():
    job = job_of_arguments()
    s3dlio = prepare(job)
    if job.small:
        many(s3dlio, job)
        return
    if job.way == "writer":
        write = lambda name, data: stream(s3dlio, job, name, data)
    else:
        write = lambda name, data: s3dlio.put_bytes(uri(job, name), data)
    lead_job(job, write, lambda name: s3dlio.get(uri(job, name)), version("s3dlio"))


if __name__ == "__main__":
    main()
