"""One invocation of the function, and its errors."""

from __future__ import annotations

import json
import threading
from concurrent.futures import Future
from typing import TYPE_CHECKING, Any

from botocore import exceptions

from migrate_cli.errors import CommandError, Commands, ExitCode, LambdaFailed, NoAnswer, NotInvoked, of_function, steps

if TYPE_CHECKING:
    from collections.abc import Mapping

    from migrate_cli.stages import Function

# Longer than Lambda's longest timeout.
READ_S = 910
_CONNECT_S = 10
_PROBE_READ_S = 60

CREDENTIALS = frozenset(
    {
        "ExpiredToken",
        "ExpiredTokenException",
        "IncompleteSignature",
        "InvalidClientTokenId",
        "InvalidSignatureException",
        "MissingAuthenticationToken",
        "MissingAuthenticationTokenException",
        "SignatureDoesNotMatch",
        "UnrecognizedClientException",
    }
)
DENIED = frozenset({"AccessDenied", "AccessDeniedException"})
# Temporary reasons for which Lambda does not run a function: missing network interfaces of an idle function, a
# deployment, or too many functions at once (Lambda API reference, Invoke, Errors).
_NOT_INVOKED = frozenset(
    {
        "EC2ThrottledException",
        "EC2UnexpectedException",
        "ENINotReadyException",
        "RequestLimitExceeded",
        "ResourceConflictException",
        "ResourceNotReadyException",
        "Throttling",
        "ThrottlingException",
        "TooManyRequestsException",
    }
)
# Failures of Lambda itself. A number is the status of an answer without a body. AWS does not document whether the
# function ran.
_SERVICE_FAILED = frozenset(
    {
        *("500", "502", "503", "504", "InternalFailure", "InternalServerError", "InternalServerErrorException"),
        *("ServiceException", "ServiceUnavailable", "ServiceUnavailableException"),
    }
)

# Errors after which the request may have arrived.
_CUT_OFF = (exceptions.HTTPClientError, exceptions.IncompleteReadError, exceptions.ResponseStreamingError)

NO_CREDENTIALS = "Log in, pass --profile, or set AWS_PROFILE. To see your identity:\n  aws sts get-caller-identity"
_UNKNOWN_END = "The function may still run. The database's state:\n  {status}\nIts log:\n  {log}"


def invoke(function: Function, event: Mapping[str, Any], commands: Commands, *, read_s: int) -> dict[str, Any]:
    """Invoke once and return the result.

    Raises:
        CommandError: the function failed, or was not reached.
    """
    try:
        client = function.client("lambda", connect_s=_CONNECT_S, read_s=read_s)
        response = client.invoke(FunctionName=function.arn(client), Payload=json.dumps(event).encode())
        request_id = response["ResponseMetadata"].get("RequestId")
        answer = json.loads(response["Payload"].read())
    except exceptions.ClientError as error:
        is_relative = str(event.get("revision", "")).startswith(("+", "-"))
        raise _refused(error, function, commands, is_relative=is_relative) from None
    except exceptions.BotoCoreError as error:
        raise unreached(error, commands) from None
    except ValueError:
        raise CommandError(
            "InvalidAnswer",
            f"{function.name} did not answer with JSON",
            ExitCode.AWS,
            advice=_filled(_UNKNOWN_END, commands),
        ) from None
    if "FunctionError" in response:
        kind = str(answer.get("errorType", "Unknown"))
        raise of_function(kind, str(answer.get("errorMessage", "")), request_id, commands)
    if not isinstance(answer, dict) or answer.get("status") != "ok":
        raise CommandError(
            "InvalidAnswer", f"{function.name} is not a migration function: it answered {answer!r:.200}", ExitCode.AWS
        )
    return answer


def begin(function: Function, event: Mapping[str, Any], commands: Commands) -> Future[dict[str, Any]]:
    """Invoke in a thread that does not delay the end of the process."""
    future: Future[dict[str, Any]] = Future()

    def work() -> None:
        try:
            future.set_result(invoke(function, event, commands, read_s=READ_S))
        except BaseException as error:  # noqa: BLE001 - any error is raised where the result is read
            future.set_exception(error)

    threading.Thread(target=work, name="invocation", daemon=True).start()
    return future


def status(function: Function, commands: Commands, target: Mapping[str, str] | None = None) -> dict[str, Any]:
    """Return the status of the stage's database, or of a target's, within a minute.

    Raises:
        CommandError: as for `invoke`.
    """
    event = {"action": "status", **({"target": dict(target)} if target else {})}
    return invoke(function, event, commands, read_s=_PROBE_READ_S)


def history(function: Function, commands: Commands) -> dict[str, Any]:
    """Return the packaged tree, within a minute.

    Raises:
        CommandError: as for `invoke`.
    """
    return invoke(function, {"action": "history"}, commands, read_s=_PROBE_READ_S)


def _refused(
    error: exceptions.ClientError, function: Function, commands: Commands, *, is_relative: bool
) -> CommandError:
    """Return the error for an answer of AWS that is not the function's. A relative step must not be taken twice."""
    details: Mapping[str, Any] = error.response
    code = details.get("Error", {}).get("Code", "Unknown")
    message = details.get("Error", {}).get("Message") or str(error)
    where = f"{function.name} in {function.session.region_name}"
    if code == "ResourceNotFoundException":
        advice = (
            f"Deploy stage {function.stage} first, or pass another --region or --profile: this account has no such"
            " function there."
        )
    elif code in DENIED:
        advice = f"The caller needs lambda:InvokeFunction on {function.name}, in the stage's own account."
    elif code in _NOT_INVOKED:
        advice = steps(("Nothing was run. In a moment", commands.again()))
        return NotInvoked(code, f"{where}: {message}", ExitCode.AWS, advice=advice)
    elif code in _SERVICE_FAILED and not is_relative:
        # If the function runs after all, the next invocation waits for its lock and finds the work done.
        return LambdaFailed(code, f"{where}: {message}", ExitCode.AWS, advice=_filled(_UNKNOWN_END, commands))
    elif code in CREDENTIALS:
        advice = NO_CREDENTIALS
    else:
        advice = _filled(_UNKNOWN_END, commands)
    request_id = details.get("ResponseMetadata", {}).get("RequestId")
    return CommandError(code, f"{where}: {message}", ExitCode.AWS, advice=advice, request_id=request_id)


def unreached(error: Exception, commands: Commands) -> CommandError:
    """Return the error for an answer that never came, or a request that could not be sent."""
    kind = type(error).__name__
    if isinstance(error, _CUT_OFF):
        return NoAnswer(kind, f"no answer came: {error}", ExitCode.AWS, advice=_filled(_UNKNOWN_END, commands))
    if isinstance(error, exceptions.ConnectionError):
        message, advice = str(error), "Nothing was run. Check the network, a proxy or VPN, and --region."
    elif isinstance(error, (exceptions.NoRegionError, exceptions.InvalidRegionError)):
        message, advice = str(error), "Pass --region, set AWS_REGION, or set the stage's region in cdk.json."
    else:
        message, advice = str(error), NO_CREDENTIALS
    return CommandError(kind, message, ExitCode.AWS, advice=advice)


def _filled(advice: str, commands: Commands) -> str:
    return advice.format(status=commands.named("status"), log=commands.log(None))
