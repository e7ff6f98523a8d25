"""A peer of the host by Python's `websockets`.

peer.py serve [OPTIONS]        a server: /feed sends the messages, /collect must get them back
peer.py dial URL [OPTIONS]     a client: sends the messages to URL/in, and must get them back from URL/out

OPTIONS are JSON; with them TLS is spoken. A server takes the files `cert`, `key` and `clients`, which is
who issued its clients' certificates; a client takes the file `ca`, and `headers`; both take `subprotocols`.

Says on standard output what the test waits for, a line each: `listening PORT`, `refused` (the server's
certificate is), `received all`, `closed CODE`; and with options what it saw, as JSON: `handshakes` of a
server by path, `chosen` and `answer` of a client.
"""

import asyncio
import json
import ssl
import sys

import websockets

COUNT = 1000


def message(n):
    return f"text {n} \u00e4\u20ac" if n % 3 else b"\x00\xff%d" % n


def say(word, rest=""):
    print(word, rest, flush=True)


async def send_all(socket):
    for n in range(COUNT):
        await socket.send(message(n))


async def receive_all(socket):
    for n in range(COUNT):
        got = await socket.recv()
        assert got == message(n), f"message {n} is {got!r}"
    say("received all")


async def closed(socket):
    try:
        await socket.recv()
    except websockets.ConnectionClosed as error:
        return error.rcvd.code if error.rcvd else None


def handshake(socket):
    headers = socket.request.headers
    certificate = socket.transport.get_extra_info("peercert")
    return {
        "authorization": headers.get("Authorization"),
        "x-room": headers.get("X-Room"),
        "offered": headers.get("Sec-WebSocket-Protocol"),
        "chosen": socket.subprotocol,
        "client": certificate and dict(*certificate["subject"])["commonName"],
    }


async def serve(options):
    tls = None
    if options:
        tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        tls.load_cert_chain(options["cert"], options["key"])
        tls.load_verify_locations(options["clients"])
        tls.verify_mode = ssl.CERT_REQUIRED
    done = asyncio.get_running_loop().create_future()
    handshakes = {}

    async def answer(socket):
        path = socket.request.path
        handshakes[path] = handshake(socket) if options else None
        if path == "/feed":
            await send_all(socket)
            await closed(socket)
        else:
            await receive_all(socket)
            if options:
                say("handshakes", json.dumps(handshakes))
            done.set_result(await closed(socket))

    subprotocols = options.get("subprotocols")
    async with websockets.serve(
        answer, "127.0.0.1", 0, compression=None, ssl=tls, subprotocols=subprotocols
    ) as server:
        say("listening", server.sockets[0].getsockname()[1])
        say("closed", await done)


async def dial(url, options):
    more = {}
    if options:
        more["ssl"] = ssl.create_default_context(cafile=options["ca"])
        more["additional_headers"] = options["headers"]
        more["subprotocols"] = options["subprotocols"]
    try:
        reader = await websockets.connect(f"{url}/out", **more)
    except ssl.SSLCertVerificationError:
        return say("refused")
    async with reader, websockets.connect(f"{url}/in", **more) as writer:
        await asyncio.gather(send_all(writer), receive_all(reader))
        if options:
            await writer.send("{}")
            say("chosen", json.dumps([writer.subprotocol, reader.subprotocol], separators=(",", ":")))
            say("answer", await reader.recv())
        say("closed", await closed(reader))


role, *arguments = sys.argv[1:]
url = [arguments.pop(0)] if role == "dial" else []
options = json.loads(arguments[0]) if arguments else {}
asyncio.run({"serve": serve, "dial": dial}[role](*url, options))
