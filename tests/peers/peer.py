"""A peer of the host by Python's `websockets`.

peer.py serve        a server: /feed sends the messages, /collect must get them back
peer.py dial URL     a client: sends the messages to URL/in, and must get them back from URL/out

Says on standard output what the test waits for, a line each: `listening PORT`, `received all`,
`closed CODE`.
"""

import asyncio
import sys

import websockets

COUNT = 1000


def message(n):
    return f"text {n} \u00e4\u20ac" if n % 3 else b"\x00\xff%d" % n


def say(line):
    print(line, flush=True)


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


async def serve():
    done = asyncio.get_running_loop().create_future()

    async def answer(socket):
        if socket.request.path == "/feed":
            await send_all(socket)
            await closed(socket)
        else:
            await receive_all(socket)
            done.set_result(await closed(socket))

    async with websockets.serve(answer, "127.0.0.1", 0, compression=None) as server:
        say(f"listening {server.sockets[0].getsockname()[1]}")
        say(f"closed {await done}")


async def dial(url):
    async with websockets.connect(f"{url}/out") as reader, websockets.connect(f"{url}/in") as writer:
        await asyncio.gather(send_all(writer), receive_all(reader))
        say(f"closed {await closed(reader)}")


asyncio.run(serve() if sys.argv[1] == "serve" else dial(sys.argv[2]))
