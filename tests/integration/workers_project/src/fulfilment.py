from workers import WorkflowEntrypoint


class Fulfilment(WorkflowEntrypoint):
    async def run(self, event, step):
        order = event["payload"]["order"]

        @step.do("reserve the stock")
        async def reserve():
            await self.set_status(order, "reserved")
            return {"order": order}

        await reserve()
        await step.sleep("let the customer think", "1 second")
        packed = await step.wait_for_event("wait for the packer", "packed", timeout="1 hour")

        @step.do("ship", config={"retries": {"limit": 3, "delay": "1 second", "backoff": "constant"}})
        async def ship():
            await self.set_status(order, f"shipped by {packed['payload']['by']}")

        await ship()

    async def set_status(self, order, status):
        await self.env.DB.prepare("UPDATE Orders SET Status = ? WHERE OrderId = ?").bind(status, order).run()
