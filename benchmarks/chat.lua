-- The load of `wrk`: each request is a new message, with a key of its own, in the next of so many sessions.
-- Arguments: a name that makes ids new, the number of sessions, the length of a message in characters, the name of the
-- only session or nothing, and the path.

local name, sessions, text, only, path
local sent = 0

function init(args)
  name, sessions = args[1], tonumber(args[2])
  local sentence = "The meeting about the harvest is on Tuesday at ten, in the room with the blue door. "
  text = string.sub(string.rep(sentence, math.ceil(tonumber(args[3]) / #sentence)), 1, tonumber(args[3]))
  only = args[4] ~= "" and args[4] or nil
  path = args[5]
end

function request()
  sent = sent + 1
  local session = only or string.format("%s-%d", name, sent % sessions)
  local headers = { ["Content-Type"] = "application/json", ["Idempotency-Key"] = string.format("%s-%d", name, sent) }
  local body = string.format(
    '{"user_id":"%s","text":"%d %s","metadata":{"session_id":"%s"}}', session, sent, text, session
  )
  return wrk.format("POST", path, headers, body)
end

-- What is no 2xx or 3xx counts as an error of status; a 202 would be a turn that was not waited for, and is none here:
-- no turn takes a minute.
function done(summary, latency, _)
  local errors = summary.errors
  io.write(string.format(
    '\n{"requests": %d, "seconds": %.3f, "p50_ms": %.3f, "p90_ms": %.3f, "p99_ms": %.3f, "errors": %d}\n',
    summary.requests, summary.duration / 1e6, latency:percentile(50) / 1e3, latency:percentile(90) / 1e3,
    latency:percentile(99) / 1e3, errors.connect + errors.read + errors.write + errors.status + errors.timeout
  ))
end
