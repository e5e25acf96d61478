#!/usr/bin/env python3
"""Independent reader of a vykar repository, written from docs/format.md alone.

It shares no code with the Rust implementation, so it serves as an oracle: what it
reads from a repository is what any conforming reader must see.

    repo_oracle.py info    REPO                     config, key and index summary
    repo_oracle.py list    REPO                     one JSON line per snapshot
    repo_oracle.py items   REPO SNAPSHOT            one JSON line per item, in stream order
    repo_oracle.py cat     REPO SNAPSHOT PATH       a file's bytes on stdout
    repo_oracle.py extract REPO SNAPSHOT DEST       regular files, directories and symlinks
    repo_oracle.py verify  REPO                     every object decrypted, every chunk id
                                                    recomputed, every refcount recounted;
                                                    exit 1 and one line per problem

SNAPSHOT is a unique hex prefix of the id, or `latest`.
The passphrase comes from VYKAR_PASSPHRASE.

Needs: pip install msgpack cryptography argon2-cffi zstandard lz4
"""
import hashlib
import json
import os
import struct
import sys

import lz4.block
import msgpack
import zstandard
from argon2.low_level import Type, hash_secret_raw
from cryptography.hazmat.primitives.ciphers.aead import AESGCM, ChaCha20Poly1305

OBJ_SNAPSHOT, OBJ_CHUNK, OBJ_INDEX = 2, 3, 4


def unmsgpack(data):
    return msgpack.unpackb(data, raw=False, strict_map_key=False, use_list=False,
                           unicode_errors="surrogateescape")


class Repo:
    def __init__(self, root, passphrase):
        self.root = root
        cfg = unmsgpack(self.read("config"))
        (self.version, rid, self.chunker, self.mode, self.created, self.min_pack,
         self.max_pack) = cfg
        self.id = bytes(rid)
        if self.mode == "None":
            self.aead = None
            self.chunk_key = hashlib.blake2b(self.id, digest_size=32).digest()
        else:
            kdf, nonce, wrapped = unmsgpack(self.read("keys/repokey"))
            alg, t, m, p, salt = kdf
            salt = bytes(salt)
            if alg != "argon2id":
                raise SystemExit(f"unknown kdf {alg}")
            kek = hash_secret_raw(passphrase.encode(), salt, t, m, p, 32, Type.ID)
            a = alg.encode()
            aad = (b"vger:kdf-aad:v1\0" + struct.pack("<I", len(a)) + a +
                   struct.pack("<III", t, m, p) + struct.pack("<I", len(salt)) + salt)
            enc, ck = unmsgpack(AESGCM(kek).decrypt(bytes(nonce), bytes(wrapped), aad))
            cipher = {"Aes256Gcm": AESGCM, "Chacha20Poly1305": ChaCha20Poly1305}[self.mode]
            self.aead = cipher(bytes(enc))
            self.chunk_key = bytes(ck)
        self.generation, chunks = unmsgpack(
            self.decompress(self.open_object(self.read("index"), OBJ_INDEX, b"index")))
        self.index = {bytes(k): (rc, size, bytes(pack), off)
                      for k, (rc, size, pack, off) in chunks[0].items()}

    def read(self, key):
        with open(os.path.join(self.root, key), "rb") as f:
            return f.read()

    def open_object(self, blob, kind, context):
        if blob[0] != kind:
            raise ValueError(f"object tag {blob[0]}, expected {kind}")
        if self.aead is None:
            return blob[1:]
        aad = bytes([kind]) + b"vger:object-context:v1\0" + context
        return self.aead.decrypt(blob[1:13], blob[13:], aad)

    @staticmethod
    def decompress(blob):
        tag, body = blob[0], blob[1:]
        if tag == 0:
            return body
        if tag == 1:
            size, = struct.unpack("<I", body[:4])
            return lz4.block.decompress(body[4:], uncompressed_size=size)
        if tag == 2:
            return zstandard.ZstdDecompressor().decompressobj().decompress(body)
        raise ValueError(f"compression tag {tag}")

    def chunk(self, cid):
        _, size, pack, off = self.index[cid]
        name = pack.hex()
        with open(os.path.join(self.root, "packs", name[:2], name), "rb") as f:
            f.seek(off - 4)
            raw = f.read(4 + size)
        if struct.unpack("<I", raw[:4])[0] != size:
            raise ValueError(f"chunk {cid.hex()}: length prefix differs from the index")
        packed = self.open_object(raw[4:], OBJ_CHUNK, cid)
        data = self.decompress(packed)
        if packed[0] != 0 and len(data) > 32 << 20:
            raise ValueError(f"chunk {cid.hex()}: expands past 32 MiB")
        if hashlib.blake2b(data, key=self.chunk_key, digest_size=32).digest() != cid:
            raise ValueError(f"chunk {cid.hex()}: content does not match its id")
        return data

    FIELDS = ["name", "hostname", "username", "time", "time_end", "chunker", "comment",
              "item_ptrs", "stats", "source_label", "source_paths", "label", "ext",
              "format_version"]

    def snapshot(self, sid):
        meta = unmsgpack(self.open_object(self.read("snapshots/" + sid), OBJ_SNAPSHOT,
                                          bytes.fromhex(sid)))
        s = dict(zip(self.FIELDS, meta))
        s.setdefault("format_version", 0)
        s["fields"] = len(meta)
        s["id"] = sid
        return s

    def snapshots(self, unreadable=None):
        found = []
        for sid in os.listdir(os.path.join(self.root, "snapshots")):
            if sid.startswith(".tmp"):
                continue
            try:
                found.append(self.snapshot(sid))
            except Exception as e:  # any failure to read a snapshot is a finding
                if unreadable is None:
                    raise SystemExit(f"snapshot {sid[:16]}: {type(e).__name__} {e}")
                unreadable.append(f"snapshot {sid[:16]}: {type(e).__name__} {e}")
        return sorted(found, key=lambda s: s["time"])

    def resolve(self, ref):
        found = self.snapshots()
        if ref == "latest":
            return found[-1]
        hits = [s for s in found if s["id"].startswith(ref) or s["name"] == ref]
        if len(hits) != 1:
            raise SystemExit(f"snapshot {ref}: {len(hits)} matches")
        return hits[0]

    ITEM = ["path", "type", "mode", "uid", "gid", "user", "group", "mtime", "atime", "ctime",
            "size", "chunks", "link_target", "xattrs", "raw_names", "hardlink"]

    def items(self, snap):
        u = msgpack.Unpacker(raw=False, strict_map_key=False, use_list=False,
                             unicode_errors="surrogateescape", max_buffer_size=0)
        for ptr in snap["item_ptrs"]:
            u.feed(self.chunk(bytes(ptr)))
            for it in u:
                d = dict(zip(self.ITEM, it))
                d["fields"] = len(it)
                for late in ("chunks", "link_target", "xattrs", "raw_names", "hardlink"):
                    d.setdefault(late, [] if late == "chunks" else None)
                d["chunks"] = [(bytes(c[0]), c[1], c[2]) for c in d["chunks"]]
                raw = d["raw_names"] or (None, None)
                d["path_bytes"] = raw[0] or os.fsencode(d["path"])
                if d["type"] == "Symlink":
                    d["target_bytes"] = raw[1] or os.fsencode(d["link_target"] or "")
                yield d


def plain(v):
    if isinstance(v, bytes):
        return v.hex()
    if isinstance(v, dict):
        return {str(k): plain(x) for k, x in v.items()}
    if isinstance(v, (list, tuple)):
        if v and len(v) == 32 and all(isinstance(x, int) for x in v):
            return bytes(v).hex()
        return [plain(x) for x in v]
    return v


def show(d):
    print(json.dumps(plain(d), sort_keys=True))


def item_problems(it):
    """What the rules of docs/format.md say against one item."""
    raw, path = it["raw_names"], it["path_bytes"]
    parts = path.split(b"/")
    if not path or path.startswith(b"/") or any(p in (b"", b".", b"..") for p in parts) or b"\0" in path:
        yield "path not relative and plain"
    if it["type"] not in ("RegularFile", "Directory", "Symlink"):
        yield f"unknown type {it['type']}"
    if it["fields"] > len(Repo.ITEM):
        yield f"{it['fields']} fields"
    if it["type"] != "RegularFile" and (it["chunks"] or it["hardlink"]):
        yield "chunks or hardlink on what is not a regular file"
    target = it.get("target_bytes")
    if it["type"] == "Symlink" and not (target and len(target) <= 4096 and b"\0" not in target):
        yield "bad symlink target"
    if it["type"] != "Symlink" and it["link_target"] is not None:
        yield "target on what is not a symlink"
    if raw is not None:
        for exact, shown in zip(raw, (it["path"], it["link_target"])):
            if exact is not None and exact.decode("utf-8", "replace") != shown:
                yield "raw name and display name disagree"
            if exact is not None and not bad_utf8(exact):
                yield "raw name is UTF-8"
        if raw[0] is None and raw[1] is None:
            yield "raw_names carries nothing"
    if it["type"] == "RegularFile" and sum(c[1] for c in it["chunks"]) != it["size"]:
        yield f"size {it['size']}, chunks {sum(c[1] for c in it['chunks'])}"


def bad_utf8(data):
    try:
        data.decode("utf-8")
        return False
    except UnicodeDecodeError:
        return True


def verify(repo):
    problems, refs = [], {}
    snapshots = repo.snapshots(problems)
    for snap in snapshots:
        if snap["fields"] > len(Repo.FIELDS) or snap["format_version"] > 1:
            problems.append(f"{snap['id'][:8]}: {snap['fields']} fields, format {snap['format_version']}: newer")
        for ptr in snap["item_ptrs"]:
            refs[bytes(ptr)] = refs.get(bytes(ptr), 0) + 1
        size = 0
        for it in repo.items(snap):
            for cid, _, _ in it["chunks"]:
                refs[cid] = refs.get(cid, 0) + 1
            if it["type"] == "RegularFile":
                size += it["size"]
            problems += [f"{snap['id'][:8]} {it['path']!r}: {p}" for p in item_problems(it)]
        if size != snap["stats"][1]:
            problems.append(f"{snap['id'][:8]}: original size {snap['stats'][1]}, counted {size}")
    for cid, (rc, *_rest) in repo.index.items():
        if refs.get(cid, 0) != rc:
            problems.append(f"chunk {cid.hex()[:16]}: refcount {rc}, counted {refs.get(cid, 0)}")
        try:
            repo.chunk(cid)
        except Exception as e:  # any failure to read a chunk is a finding
            problems.append(f"chunk {cid.hex()[:16]}: {type(e).__name__} {e}")
    for cid in refs.keys() - repo.index.keys():
        problems.append(f"chunk {cid.hex()[:16]}: referenced, not in the index")
    for p in {e[2] for e in repo.index.values()}:
        name = p.hex()
        data = repo.read(f"packs/{name[:2]}/{name}")
        if hashlib.blake2b(data, digest_size=32).digest() != p:
            problems.append(f"pack {name[:16]}: content does not match its id")
        if data[:9] != b"VGERPACK\x01":
            problems.append(f"pack {name[:16]}: bad header")
    for p in problems:
        print(p)
    print(f"{len(repo.index)} chunks, {len(snapshots)} snapshots, {len(problems)} problems")
    return 1 if problems else 0


def extract(repo, snap, dest):
    for it in repo.items(snap):
        out = os.path.join(os.fsencode(dest), it["path_bytes"])
        os.makedirs(os.path.dirname(out), exist_ok=True)
        if it["type"] == "Directory":
            os.makedirs(out, exist_ok=True)
        elif it["type"] == "Symlink":
            os.symlink(it["target_bytes"], out)
        else:
            with open(out, "wb") as f:
                for cid, _, _ in it["chunks"]:
                    f.write(repo.chunk(cid))


def main(argv):
    if len(argv) < 3:
        raise SystemExit(__doc__)
    cmd, repo = argv[1], Repo(argv[2], os.environ.get("VYKAR_PASSPHRASE", ""))
    if cmd == "info":
        show({"version": repo.version, "id": repo.id, "mode": repo.mode, "chunker": repo.chunker,
              "pack_sizes": [repo.min_pack, repo.max_pack], "created": repo.created,
              "generation": repo.generation, "chunks": len(repo.index)})
    elif cmd == "list":
        for s in repo.snapshots():
            s["item_ptrs"] = len(s["item_ptrs"])
            show(s)
    elif cmd == "items":
        for it in repo.items(repo.resolve(argv[3])):
            show(it)
    elif cmd == "cat":
        want = os.fsencode(argv[4])
        for it in repo.items(repo.resolve(argv[3])):
            if it["path_bytes"] == want:
                for cid, _, _ in it["chunks"]:
                    sys.stdout.buffer.write(repo.chunk(cid))
                return 0
        raise SystemExit(f"{argv[4]}: not in the snapshot")
    elif cmd == "extract":
        extract(repo, repo.resolve(argv[3]), argv[4])
    elif cmd == "verify":
        return verify(repo)
    else:
        raise SystemExit(__doc__)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv))
