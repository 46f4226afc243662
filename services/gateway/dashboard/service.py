"""Gateway's service of the dashboard: files as they lie here, and cookies for those who may come in."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, Final

from google.api import httpbody_pb2

from agentnet.gateway.v1 import dashboard_service_pb2 as pb
from agentnet.gateway.v1 import dashboard_service_pb2_grpc
from services.gateway import convert
from services.gateway.admission import Admission, Request
from services.gateway.audit import Audit
from services.gateway.dashboard.codes import Codes
from services.gateway.dashboard.cookies import PAGE, Cookies
from services.gateway.errors import CredentialsMissing, MethodUnknown
from services.gateway.tokens import Tokens
from shared import fields
from shared.clock import Clock
from shared.errors import InvalidArgument, Unauthenticated
from shared.identity import Principal, current
from shared.rpc.log import request_id

# Scripts and styles of this address alone, no frames, no forms, nothing written into the page as markup.
POLICY: Final = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self'; base-uri 'none'; "
    "form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'"
)
_TTL: Final = timedelta(hours=1)
_SIGN_IN: Final = "/agentnet.gateway.v1.DashboardService/SignIn"
_PAGES: Final = Path(__file__).with_name("pages")
_TYPES: Final = {".html": "text/html", ".js": "text/javascript", ".css": "text/css", ".svg": "image/svg+xml"}
_OPEN: Final = frozenset({"sign-in.html", "sign-in.js", "style.css", "mark.svg"})
_VERIFIER: Final = range(43, 129)


class DashboardService(dashboard_service_pb2_grpc.DashboardServiceServicer):
    """Pages, sign-in, sign-out."""

    def __init__(
        self, cookies: Cookies, codes: Codes, tokens: Tokens, *, admission: Admission, audit: Audit, clock: Clock
    ) -> None:
        self._cookies = cookies
        self._codes = codes
        self._tokens = tokens
        self._admission = admission
        self._audit = audit
        self._clock = clock
        self._files = {file.name: file.read_bytes() for file in _PAGES.iterdir() if file.suffix in _TYPES}

    async def GetDashboard(self, request: pb.GetDashboardRequest, context: Any) -> httpbody_pb2.HttpBody:
        return await self._file(request.file or "index.html", context, among=self._files.keys() - _OPEN)

    async def GetSignIn(self, request: pb.GetSignInRequest, context: Any) -> httpbody_pb2.HttpBody:
        return await self._file(request.file or "sign-in.html", context, among=_OPEN)

    async def GetSignInIssuers(self, request: pb.GetSignInIssuersRequest, context: Any) -> pb.GetSignInIssuersResponse:
        return pb.GetSignInIssuersResponse(
            issuers=[
                pb.SignInIssuer(
                    issuer=one.settings.issuer,
                    authorization_endpoint=one.authorization_endpoint,
                    client_id=one.settings.client_id,
                    scope=one.settings.scope,
                    audience=one.settings.audience,
                )
                for one in await self._codes.entrances()
            ]
        )

    async def SignIn(self, request: pb.SignInRequest, context: Any) -> pb.SignInResponse:
        caller = current()
        end = await self._signed_in(caller, context)
        return pb.SignInResponse(principal=convert.principal(caller), expire_time=convert.time(end))

    async def SignInWithCode(self, request: pb.SignInWithCodeRequest, context: Any) -> pb.SignInWithCodeResponse:
        said = {str(name): str(value) for name, value in context.invocation_metadata() if isinstance(value, str)}
        caller = await self._admitted(request, said)
        end = await self._signed_in(caller, context)
        return pb.SignInWithCodeResponse(principal=convert.principal(caller), expire_time=convert.time(end))

    async def SignOut(self, request: pb.SignOutRequest, context: Any) -> pb.SignOutResponse:
        await self._audit.act(current(), "dashboard.signed_out", current().subject)
        await context.send_initial_metadata((("set-cookie", self._cookies.ended()),))
        return pb.SignOutResponse()

    async def _admitted(self, request: pb.SignInWithCodeRequest, said: Mapping[str, str]) -> Principal:
        """Who the code is for, let in as by any other credential. What is refused is audited either way."""
        verifier = fields.required(request.code_verifier, "code_verifier", limit=_VERIFIER[-1])
        if len(verifier) not in _VERIFIER:
            raise InvalidArgument("code_verifier has 43 to 128 characters", field="code_verifier")
        address = said.get("x-forwarded-for", "").rpartition(",")[2].strip()
        try:
            if PAGE not in said:
                raise CredentialsMissing(f"pages send {PAGE}")
            token = await self._codes.token(
                fields.required(request.issuer, "issuer", limit=2048),
                code=fields.required(request.code, "code", limit=4096),
                verifier=verifier,
                redirect=fields.required(request.redirect_uri, "redirect_uri", limit=2048),
            )
        except Unauthenticated as error:
            await self._admission.note_refused(_SIGN_IN, error.reason_name, address=address, request_id=request_id())
            raise
        headers = {"authorization": f"Bearer {token}"}
        asked = Request(_SIGN_IN, headers, address=address, request_id=request_id())
        admitted = await self._admission.admit(asked)
        if admitted is None:
            raise CredentialsMissing("sign-in is open to nobody")
        return admitted.principal

    async def _signed_in(self, caller: Principal, context: Any) -> datetime:
        token, end = self._tokens.make(caller, _TTL)
        await self._audit.act(caller, "dashboard.signed_in", caller.subject)
        cookie = self._cookies.made(token, end - self._clock.now())
        await context.send_initial_metadata((("set-cookie", cookie),))
        return end

    async def _file(self, name: str, context: Any, *, among: frozenset[str] | set[str]) -> httpbody_pb2.HttpBody:
        if name not in among:
            raise MethodUnknown(f"the dashboard has no file {name[:64]}")
        await context.send_initial_metadata((("content-security-policy", POLICY),))
        kind = _TYPES[Path(name).suffix]
        return httpbody_pb2.HttpBody(content_type=f"{kind}; charset=utf-8", data=self._files[name])
