"""What a daemon says of itself at port+1."""

import aiohttp
from prometheus_client.parser import text_string_to_metric_families

Metrics = dict[tuple[str, tuple[str, ...]], float]
"""By name and the values of the labels, in the order of the labels' names."""


async def metrics_at(http: aiohttp.ClientSession, health_url: str) -> Metrics:
    """As the daemon wrote them last, which it does each second. Raises aiohttp.ClientError."""
    async with http.get(f"{health_url}/metrics") as answer:
        text = await answer.text()
    return {
        (sample.name, tuple(value for _, value in sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }
