"""Which peers may open an association: calling AE titles, and the networks they call from."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

Network = ipaddress.IPv4Network | ipaddress.IPv6Network
# PS3.5 6.2, VR AE: 1 to 16 characters of the default repertoire without the backslash; spaces at
# its ends do not count
AE_TITLE = re.compile(r"(?! )[ -\[\]-~]{1,16}(?<! )")
NETWORK_LIKE = re.compile(r"[\d.]*\.[\d.]*(/\d*)?|[\da-fA-F:.]*:[\da-fA-F:.]*(/\d*)?")


class CallerError(ValueError):
    """An entry of the allow-list is neither an AE title nor a network."""


@dataclass(frozen=True)
class Caller:
    """An entry of the allow-list; None stands for any."""

    ae_title: str | None
    network: Network | None

    @classmethod
    def parse(cls, text: str) -> Caller:
        """Read `AE@network`, an AE title, or a network or address.

        Raises:
            CallerError: It is none of these.
        """
        title, separator, address = text.rpartition("@")
        try:
            if separator:
                return cls(checked_title(title), _network(address))
            if NETWORK_LIKE.fullmatch(text):
                return cls(None, _network(text))
            return cls(checked_title(text), None)
        except CallerError as error:
            raise CallerError(
                f"{text!r} is no caller (AE, network or AE@network): {error}"
            ) from None

    def allows(self, ae_title: str, address: str) -> bool:
        """Whether a peer is meant by this entry."""
        if self.ae_title is not None and self.ae_title != ae_title.strip(" "):
            return False
        return self.network is None or _address(address) in self.network


def is_allowed(callers: Sequence[Caller], ae_title: str, address: str) -> bool:
    """Whether a peer may open an association; without entries, any on this machine may."""
    if not callers:
        return _address(address).is_loopback
    return any(caller.allows(ae_title, address) for caller in callers)


def parse_callers(texts: Iterable[str]) -> tuple[Caller, ...]:
    """The entries of the allow-list.

    Raises:
        CallerError: See `Caller.parse`.
    """
    return tuple(map(Caller.parse, texts))


def checked_title(text: str) -> str:
    """An AE title as it is.

    Raises:
        CallerError: It is not valid.
    """
    if not AE_TITLE.fullmatch(text):
        raise CallerError(f"{text!r} is no AE title: 1 to 16 ASCII characters without backslash")
    return text


def _network(text: str) -> Network:
    try:
        return ipaddress.ip_network(text)
    except ValueError as error:
        raise CallerError(str(error)) from None


def _address(text: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address:
    """An address without its zone; one of IPv4 as such, also if a socket of IPv6 has taken it."""
    address = ipaddress.ip_address(text.partition("%")[0])
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return mapped or address
