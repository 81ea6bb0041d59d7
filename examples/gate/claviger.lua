-- Asks Claviger's gate whether a request's key may pass, for HAProxy 2.6 or newer.
--
--   lua-load /etc/haproxy/claviger.lua                                      (in `global`)
--   http-request set-var-fmt(txn.claviger_asks) "audience=invoices-api"     (what the route wants)
--   http-request lua.claviger abns@claviger-gate                            (where a `listen` section leads to the gate)
--   http-request deny deny_status 503 unless { var(txn.claviger_allows) -m bool }
--
-- If the gate allows, the request gets all that the gate says about the key (x-claviger-*), and txn.claviger_allows is true.
-- If it refuses, the client gets the gate's answer. If it cannot say, the client gets 503.

-- What concerns one connection or one body, not the question.
local NOT_PASSED_ON = {}
for _, name in ipairs({
  "connection", "content-length", "expect", "host", "keep-alive", "proxy-connection", "te", "trailer", "transfer-encoding",
  "upgrade", "x-forwarded-method", "x-forwarded-uri",
}) do
  NOT_PASSED_ON[name] = true
end

-- The values of a header as a list from 1 on; HAProxy counts from 0 in some places.
local function listed(values)
  local list = {}
  for index = 0, #values do
    if values[index] then list[#list + 1] = values[index] end
  end
  return list
end

local function unavailable(txn)
  local reply = txn:reply({ status = 503 })
  reply:add_header("cache-control", "no-store")
  reply:add_header("content-type", "application/json")
  reply:add_header("x-claviger-code", "UNAVAILABLE")
  reply:set_body('{"code":"UNAVAILABLE","message":"the gate does not answer"}')
  txn:done(reply)
end

local function ask(txn, gate)
  local headers = {
    ["x-forwarded-method"] = { txn.f:method() },
    ["x-forwarded-uri"] = { txn.f:pathq() },
  }
  for name, values in pairs(txn.http:req_get_headers()) do
    if not NOT_PASSED_ON[name] then headers[name] = listed(values) end
  end
  local url = "http://claviger-gate/v1/auth/haproxy/" .. txn:get_var("txn.claviger_asks") .. "/-"
  local answer = core.httpclient():get({ url = url, dst = gate, headers = headers })

  if answer and answer.status == 200 then
    for name, values in pairs(answer.headers) do
      if name:sub(1, 11) == "x-claviger-" then txn.http:req_set_header(name, table.concat(listed(values), ",")) end
    end
    txn:set_var("txn.claviger_allows", true)
  elseif answer and (answer.status == 401 or answer.status == 403 or answer.status == 429) then
    local reply = txn:reply({ status = answer.status, reason = answer.reason })
    for name, values in pairs(answer.headers) do
      for _, value in ipairs(NOT_PASSED_ON[name] and {} or listed(values)) do reply:add_header(name, value) end
    end
    reply:set_body(answer.body or "")
    txn:done(reply)
  else
    unavailable(txn)
  end
end

core.register_action("claviger", { "http-req" }, ask, 1)
