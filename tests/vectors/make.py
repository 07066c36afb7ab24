#!/usr/bin/env python3
"""Second implementation of everything the protocol derives, seals and checks; standard library only.

Writes the JSON files beside it. It shares no code with the product: X25519, ChaCha20-Poly1305 and SipHash are
written out here, BLAKE2s and HMAC are Python's. `make.py --check` writes nothing and fails if a file differs.
It is slow and not constant-time: it must never see a key anybody uses.
"""

import hashlib
import hmac
import ipaddress
import json
import pathlib
import struct
import sys

HERE = pathlib.Path(__file__).parent
P = 2**255 - 19


# --- primitives ---------------------------------------------------------------------------------------------

def blake2s(*parts):
    return hashlib.blake2s(b"".join(parts)).digest()


def mac(key, *parts):
    return hashlib.blake2s(b"".join(parts), key=key, digest_size=16).digest()


def hmac_blake2s(key, data):
    return hmac.new(key, data, hashlib.blake2s).digest()


def hkdf_extract(salt, ikm):
    return hmac_blake2s(salt, ikm)


def hkdf_expand(prk, info, length):
    out, block, number = b"", b"", 1
    while len(out) < length:
        block = hmac_blake2s(prk, block + info + bytes([number]))
        out, number = out + block, number + 1
    return out[:length]


def clamp(scalar):
    raw = bytearray(scalar)
    raw[0] &= 248
    raw[31] = (raw[31] & 127) | 64
    return bytes(raw)


def x25519(scalar, point=(9).to_bytes(32, "little")):
    k = int.from_bytes(clamp(scalar), "little")
    u = int.from_bytes(point, "little") % 2**255
    x2, z2, x3, z3, swap = 1, 0, u, 1, 0
    for t in reversed(range(255)):
        bit = (k >> t) & 1
        if swap ^ bit:
            x2, x3, z2, z3 = x3, x2, z3, z2
        swap = bit
        a, b = (x2 + z2) % P, (x2 - z2) % P
        c, d = (x3 + z3) % P, (x3 - z3) % P
        da, cb, aa, bb = d * a % P, c * b % P, a * a % P, b * b % P
        x3, z3 = (da + cb) ** 2 % P, u * (da - cb) ** 2 % P
        e = (aa - bb) % P
        x2, z2 = aa * bb % P, e * (aa + 121665 * e) % P
    if swap:
        x2, z2 = x3, z3
    return (x2 * pow(z2, P - 2, P) % P).to_bytes(32, "little")


def rotl32(v, n):
    return ((v << n) | (v >> (32 - n))) & 0xFFFFFFFF


def chacha_rounds(state):
    s = list(state)

    def quarter(a, b, c, d):
        for x, y, z, n in ((a, b, d, 16), (c, d, b, 12), (a, b, d, 8), (c, d, b, 7)):
            s[x] = (s[x] + s[y]) & 0xFFFFFFFF
            s[z] = rotl32(s[z] ^ s[x], n)

    for _ in range(10):
        for i in range(4):
            quarter(i, 4 + i, 8 + i, 12 + i)
        for i in range(4):
            quarter(i, 4 + (i + 1) % 4, 8 + (i + 2) % 4, 12 + (i + 3) % 4)
    return s


CONSTANTS = struct.unpack("<4I", b"expand 32-byte k")


def chacha_block(key, counter, nonce):
    state = [*CONSTANTS, *struct.unpack("<8I", key), counter, *struct.unpack("<3I", nonce)]
    return struct.pack("<16I", *((a + b) & 0xFFFFFFFF for a, b in zip(chacha_rounds(state), state)))


def hchacha(key, nonce16):
    s = chacha_rounds([*CONSTANTS, *struct.unpack("<8I", key), *struct.unpack("<4I", nonce16)])
    return struct.pack("<8I", *s[:4], *s[12:])


def poly1305(key, data):
    r = int.from_bytes(key[:16], "little") & 0x0FFFFFFC0FFFFFFC0FFFFFFC0FFFFFFF
    total = 0
    for i in range(0, len(data), 16):
        total = (total + int.from_bytes(data[i:i + 16] + b"\x01", "little")) * r % (2**130 - 5)
    return ((total + int.from_bytes(key[16:], "little")) % 2**128).to_bytes(16, "little")


def chacha20poly1305(key, nonce, aad, text):
    sealed = b""
    for i in range(0, len(text), 64):
        block = chacha_block(key, 1 + i // 64, nonce)
        sealed += bytes(a ^ b for a, b in zip(text[i:i + 64], block))

    def pad(data):
        return data + bytes(-len(data) % 16)

    lengths = struct.pack("<QQ", len(aad), len(sealed))
    return sealed + poly1305(chacha_block(key, 0, nonce)[:32], pad(aad) + pad(sealed) + lengths)


def xchacha20poly1305(key, nonce, aad, text):
    return chacha20poly1305(hchacha(key, nonce[:16]), bytes(4) + nonce[16:], aad, text)


def siphash_1_3(key, data):
    mask = 2**64 - 1
    k0, k1 = struct.unpack("<QQ", key)
    v = [k0 ^ 0x736F6D6570736575, k1 ^ 0x646F72616E646F6D, k0 ^ 0x6C7967656E657261, k1 ^ 0x7465646279746573]

    def rotl(x, n):
        return ((x << n) | (x >> (64 - n))) & mask

    def sipround():
        v[0] = (v[0] + v[1]) & mask
        v[1] = rotl(v[1], 13) ^ v[0]
        v[0] = rotl(v[0], 32)
        v[2] = (v[2] + v[3]) & mask
        v[3] = rotl(v[3], 16) ^ v[2]
        v[0] = (v[0] + v[3]) & mask
        v[3] = rotl(v[3], 21) ^ v[0]
        v[2] = (v[2] + v[1]) & mask
        v[1] = rotl(v[1], 17) ^ v[2]
        v[2] = rotl(v[2], 32)

    tail = len(data) % 8
    last = data[len(data) - tail:] + bytes(7 - tail) + bytes([len(data) % 256])
    for i in range(0, len(data) - tail, 8):
        word = struct.unpack("<Q", data[i:i + 8])[0]
        v[3] ^= word
        sipround()
        v[0] ^= word
    word = struct.unpack("<Q", last)[0]
    v[3] ^= word
    sipround()
    v[0] ^= word
    v[2] ^= 0xFF
    for _ in range(3):
        sipround()
    return v[0] ^ v[1] ^ v[2] ^ v[3]


class Stream:
    """The fixed randomness of the Rust tests: block i is BLAKE2s(seed ‖ i)."""

    def __init__(self, seed):
        self.seed, self.block = seed, 0

    def fill(self, n):
        out = b""
        while len(out) < n:
            out += blake2s(bytes([self.seed]), struct.pack("<I", self.block))[:n - len(out)]
            self.block += 1
        return out


# --- the key schedule ---------------------------------------------------------------------------------------

LABELS = [
    ("data up", 32), ("data down", 32), ("control up", 32), ("control down", 32),
    ("steering up", 16), ("steering down", 16),
]


def schedule(handshake_hash, k1, k2):
    prk = hkdf_extract(handshake_hash, k1 + k2)
    return {label: hkdf_expand(prk, b"jvp/1 " + label.encode(), n) for label, n in LABELS}


def schedule_vectors():
    cases = []
    for seed in range(3):
        stream = Stream(0x40 + seed)
        h, k1, k2 = stream.fill(32), stream.fill(32), stream.fill(32)
        cases.append({"hash": h, "k1": k1, "k2": k2, **schedule(h, k1, k2)})
    return cases


# --- the steering tag ---------------------------------------------------------------------------------------

def steering_vectors():
    cases = []
    for i, (counter, kind, epoch, flags, k) in enumerate([
        (0, 4, 0, 0, 0), (1, 4, 0, 0, 0), (0, 4, 0, 0, 1), (2**64 - 1, 5, 255, 3, 65535),
        (7, 6, 1, 0, 2), (7, 7, 1, 1, 2), (1 << 40, 8, 9, 1, 300),
    ]):
        stream = Stream(0x60 + i)
        key, body = stream.fill(16), stream.fill(48) if kind >= 6 else b""
        data = body + struct.pack("<QBBHH", counter, kind, epoch, flags, k)
        cases.append({
            "key": key, "counter": counter, "kind": kind, "epoch": epoch, "flags": flags, "k": k, "body": body,
            "tag": siphash_1_3(key, data) & 0xFFFFFFFF,
        })
    return cases


# --- MACs and cookies ---------------------------------------------------------------------------------------

def address_bytes(ip, port):
    ip = ipaddress.ip_address(ip)
    return bytes([ip.version]) + ip.packed.ljust(16, b"\0") + struct.pack("<H", port)


def cookie_vectors():
    stream = Stream(0x70)
    receiver = x25519(stream.fill(32))
    secret = stream.fill(32)
    mac1_key, cookie_key = blake2s(b"jvp/1 mac1", receiver), blake2s(b"jvp/1 cookie", receiver)
    text = bytes([1, 1, 0, 0]) + struct.pack("<I", 0x01020304) + Stream(0x71).fill(1160)
    cases = []
    for i, (ip, port) in enumerate([("192.0.2.7", 51821), ("2001:db8::7", 40000)]):
        mac1 = mac(mac1_key, text)
        cookie = mac(secret, address_bytes(ip, port))
        nonce = Stream(0x72 + i).fill(24)
        sealed = xchacha20poly1305(cookie_key, nonce, mac1, cookie)
        cases.append({
            "receiver": receiver, "secret": secret, "ip": ip, "port": port, "text": text, "mac1": mac1,
            "cookie": cookie, "mac2": mac(cookie, text, mac1), "nonce_seed": 0x72 + i,
            "reply": bytes([3, 1, 0, 0]) + struct.pack("<I", 0x01020304) + nonce + sealed,
        })
    return cases


def challenge_vectors():
    cases = []
    for i, (client, gateway) in enumerate([
        (("198.51.100.3", 1024), ("203.0.113.1", 51821)), (("2001:db8::3", 65535), ("2001:db8::1", 51821)),
    ]):
        session = Stream(0x80 + i).fill(16)
        # The Rust side draws its secret from the stream with this seed.
        secret = Stream(0x90 + i).fill(32)
        nonce, purpose, incarnation, time = 5 + i, 2, 77, 123_456_789_000
        cookie = mac(
            secret, b"jvp/1 challenge", session, address_bytes(*client), address_bytes(*gateway),
            struct.pack("<QBQQ", nonce, purpose, incarnation, time))
        cases.append({
            "secret_seed": 0x90 + i, "session": session, "client_ip": client[0], "client_port": client[1],
            "gateway_ip": gateway[0], "gateway_port": gateway[1], "nonce": nonce, "purpose": purpose,
            "incarnation": incarnation, "time": time, "cookie": cookie,
        })
    return cases


# --- sealed control -----------------------------------------------------------------------------------------

def control_vectors():
    cases = []
    for i, (k, counter) in enumerate([(0, 0), (0, 1), (1, 0), (65535, 2)]):
        key, text = Stream(0xA0 + i).fill(32), Stream(0xB0 + i).fill(100 + i)
        header = struct.pack("<BBHIQQ", 5, 3, 1, 0xDEADBEEF, 0x0123456789ABCDEF, counter)
        sealed = chacha20poly1305(key, struct.pack("<IQ", k, counter), header, text)
        cases.append({"key": key, "k": k, "counter": counter, "text": text, "datagram": header + sealed})
    return cases


# --- the handshake ------------------------------------------------------------------------------------------

class Symmetric:
    def __init__(self, name, prologue):
        self.h = self.ck = blake2s(name) if len(name) > 32 else name.ljust(32, b"\0")
        self.key, self.n = None, 0
        self.mix_hash(prologue)

    def mix_hash(self, data):
        self.h = blake2s(self.h, data)

    def hkdf(self, ikm, n):
        out = hkdf_expand(hkdf_extract(self.ck, ikm), b"", 32 * n)
        return [out[i:i + 32] for i in range(0, 32 * n, 32)]

    def mix_key(self, ikm):
        self.ck, self.key = self.hkdf(ikm, 2)
        self.n = 0

    def mix_key_and_hash(self, ikm):
        self.ck, middle, self.key = self.hkdf(ikm, 3)
        self.mix_hash(middle)
        self.n = 0

    def seal(self, text):
        sealed = chacha20poly1305(self.key, bytes(4) + struct.pack("<Q", self.n), self.h, text)
        self.n += 1
        self.mix_hash(sealed)
        return sealed

    def split(self):
        return self.hkdf(b"", 2)


def handshake(seeds, payload1, payload2):
    """IKpsk2: <- s ... -> e, es, s, ss   <- e, ee, se, psk"""
    s_i, s_r, psk, e_i, e_r = (Stream(seed).fill(32) for seed in seeds)
    state = Symmetric(b"Noise_IKpsk2_25519_ChaChaPoly_BLAKE2s", b"jvp/1")
    state.mix_hash(x25519(s_r))
    # -> e, es, s, ss
    state.mix_hash(x25519(e_i))
    state.mix_key(x25519(e_i))
    state.mix_key(x25519(e_i, x25519(s_r)))
    message1 = x25519(e_i) + state.seal(x25519(s_i))
    state.mix_key(x25519(s_i, x25519(s_r)))
    message1 += state.seal(payload1)
    # <- e, ee, se, psk
    state.mix_hash(x25519(e_r))
    state.mix_key(x25519(e_r))
    state.mix_key(x25519(e_r, x25519(e_i)))
    state.mix_key(x25519(e_r, x25519(s_i)))
    state.mix_key_and_hash(psk)
    message2 = x25519(e_r) + state.seal(payload2)
    k1, k2 = state.split()
    return {
        "seed_initiator": seeds[0], "seed_responder": seeds[1], "seed_psk": seeds[2],
        "seed_ephemeral_initiator": seeds[3], "seed_ephemeral_responder": seeds[4],
        "initiator_public": x25519(s_i), "responder_public": x25519(s_r),
        "payload1": payload1, "message1": message1, "payload2": payload2, "message2": message2,
        "hash": state.h, "k1": k1, "k2": k2, **schedule(state.h, k1, k2),
    }


def handshake_vectors():
    return [
        handshake((1, 2, 3, 4, 5), b"hello".ljust(1064, b"\0"), b"answer".ljust(300, b"\0")),
        handshake((11, 12, 13, 14, 15), b"", b""),
    ]


# --- files --------------------------------------------------------------------------------------------------

def self_check():
    """The primitives against published values, so that two equal mistakes are not needed to pass."""
    key = bytes(range(0x80, 0xA0))
    sealed = chacha20poly1305(
        key, bytes.fromhex("070000004041424344454647"), bytes.fromhex("50515253c0c1c2c3c4c5c6c7"),
        b"Ladies and Gentlemen of the class of '99: If I could offer you only one tip for the future, "
        b"sunscreen would be it.")
    assert sealed[-16:].hex() == "1ae10b594f09e26a7e902ecbd0600691"  # RFC 8439 2.8.2
    alice = bytes.fromhex("77076d0a7318a57d3c16c17251b26645df4c2f87ebc0992ab177fba51db92c2a")
    assert x25519(alice).hex() == "8520f0098930a754748b7ddcb43ef75a0dbf3a0d26381af4eba4a98eaa9b4e6a"  # RFC 7748 6.1
    hkey = bytes(range(32))
    assert hchacha(hkey, bytes.fromhex("000000090000004a0000000031415927")).hex() == \
        "82413b4227b27bfed30e42508a877d73a0f9e4d58a74a853c12ec41326d3ecdc"  # draft-irtf-cfrg-xchacha 2.2.1


def text_of(cases):
    def plain(value):
        return value.hex() if isinstance(value, bytes) else value

    return json.dumps([{name: plain(value) for name, value in case.items()} for case in cases], indent=1) + "\n"


def main():
    self_check()
    files = {
        "schedule": schedule_vectors(), "steering": steering_vectors(), "cookie": cookie_vectors(),
        "challenge": challenge_vectors(), "control": control_vectors(), "handshake": handshake_vectors(),
    }
    stale = []
    for name, cases in files.items():
        path = HERE / f"{name}.json"
        if "--check" in sys.argv:
            if not path.exists() or path.read_text() != text_of(cases):
                stale.append(path.name)
        else:
            path.write_text(text_of(cases))
    if stale:
        sys.exit(f"differ from what make.py computes: {', '.join(stale)}")


if __name__ == "__main__":
    main()
