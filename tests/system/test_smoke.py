from support.system import System, events
async def test_it(app: System) -> None:
    await app.worker()
    edge = await app.edge()
    async with edge.v1("/support/realtime/kinds") as c:
        await c.send("hey")
        print(c.welcome)
        while (f := await c.next())["type"] != "ack":
            print(f)
    async with events(edge, "/support/stream/kinds") as e:
        while (b := await e.bytes()): print(b)
