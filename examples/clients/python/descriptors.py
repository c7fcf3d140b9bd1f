"""Sends an open file with a call and gets one back, over raw HTTP/2 frames and nothing else.

It shows what docs/descriptors.md says of the wire. Usage: descriptors.py SOCKET METHOD, where METHOD is
the path of a unary method that answers an empty message and returns the descriptors that it got.
"""

import array
import os
import socket
import struct
import sys

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
DATA, HEADERS, RST_STREAM, SETTINGS, GOAWAY, DESCRIPTORS = 0x0, 0x1, 0x3, 0x4, 0x7, 0xFD
END_STREAM, ACK, END_HEADERS = 0x1, 0x1, 0x4
SETTINGS_DESCRIPTORS = 0xFD00
MOST = 253


def frame(kind, flags, stream, payload=b""):
    return struct.pack(">I", len(payload))[1:] + struct.pack(">BBI", kind, flags, stream) + payload


def header_block(fields):
    """HPACK at its simplest: each field a literal that enters no table (RFC 7541, 6.2.2)."""
    text = b""
    for name, value in fields:
        assert len(name) < 127 and len(value) < 127
        text += b"\0" + bytes([len(name)]) + name.encode() + bytes([len(value)]) + value.encode()
    return text


class Connection:
    def __init__(self, path):
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.socket.connect(path)
        self.buffer = b""
        self.sets = []  # received and not matched yet, oldest first
        self.peer_takes = 0
        ours = struct.pack(">HI", SETTINGS_DESCRIPTORS, MOST)
        self.socket.sendall(PREFACE + frame(SETTINGS, 0, 0, ours))

    def receive(self):
        """Returns one frame, and the descriptors if it is a DESCRIPTORS frame."""
        while True:
            if len(self.buffer) >= 9:
                length = int.from_bytes(self.buffer[:3], "big")
                kind, flags, stream = struct.unpack(">BBI", self.buffer[3:9])
                if len(self.buffer) >= 9 + length:
                    payload = self.buffer[9 : 9 + length]
                    self.buffer = self.buffer[9 + length :]
                    # The order alone says which set belongs to which frame.
                    own = self.sets.pop(0) if kind == DESCRIPTORS and payload[0] else []
                    assert kind != DESCRIPTORS or len(own) == payload[0]
                    return kind, flags, stream, payload, own
            room = socket.CMSG_SPACE(MOST * array.array("i").itemsize)
            data, control, flags, _ = self.socket.recvmsg(65536, room, socket.MSG_CMSG_CLOEXEC)
            assert data and not flags & socket.MSG_CTRUNC
            self.buffer += data
            for level, kind, value in control:
                if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
                    self.sets.append(list(array.array("i", value)))

    def handshake(self):
        kind, flags, _, payload, _ = self.receive()
        assert (kind, flags & ACK) == (SETTINGS, 0)
        for at in range(0, len(payload), 6):
            name, value = struct.unpack(">HI", payload[at : at + 6])
            if name == SETTINGS_DESCRIPTORS:
                self.peer_takes = value
        self.socket.sendall(frame(SETTINGS, ACK, 0))

    def call(self, stream, path, descriptors):
        """Makes a unary call with an empty message. Returns the descriptors of the response."""
        assert len(descriptors) <= self.peer_takes, "the server does not take that many"
        head = [(":method", "POST"), (":scheme", "http"), (":path", path), (":authority", "localhost")]
        head += [("content-type", "application/grpc"), ("te", "trailers")]
        # The set goes with the first byte of this frame, and the frame goes alone.
        announcement = frame(DESCRIPTORS, 0, stream, bytes([len(descriptors)]))
        rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", descriptors))]
        sent = self.socket.sendmsg([announcement], rights)
        self.socket.sendall(announcement[sent:])
        self.socket.sendall(frame(HEADERS, END_HEADERS, stream, header_block(head)))
        self.socket.sendall(frame(DATA, END_STREAM, stream, b"\0" * 5))
        received = []
        while True:
            kind, flags, its_stream, payload, own = self.receive()
            assert kind not in (GOAWAY, RST_STREAM), payload
            if its_stream == stream:
                received += own
                if kind in (HEADERS, DATA) and flags & END_STREAM:
                    return received


def main(path, method):
    connection = Connection(path)
    connection.handshake()
    if not connection.peer_takes:
        sys.exit(f"the server at {path} takes no descriptors")
    for stream in (1, 3, 5):
        reader, writer = os.pipe()
        returned = connection.call(stream, method, [writer])
        if len(returned) != 1:
            sys.exit(f"{method} returned {len(returned)} descriptors, not the one that it was sent")
        (returned,) = returned
        os.close(writer)
        os.write(returned, b"hello from the descriptor of call %d" % stream)
        os.close(returned)
        print(os.read(reader, 100).decode())
        os.close(reader)


if __name__ == "__main__":
    main(*sys.argv[1:])
