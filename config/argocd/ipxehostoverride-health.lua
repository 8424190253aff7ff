-- Health of an IpxeHostOverride for Argo CD, in argocd-cm under resource.customizations.health.ipxe-bridge.io_IpxeHostOverride
local health = { status = "Progressing", message = "Waiting for a bridge" }
if obj.status == nil or obj.status.conditions == nil or obj.status.observedGeneration ~= obj.metadata.generation then
  return health
end
local conditions = {}
for _, condition in ipairs(obj.status.conditions) do
  conditions[condition.type] = condition
end
local ready, conflicted = conditions.Ready, conditions.Conflicted
if ready == nil then
  return health
end
-- Its end was asked for, and so was another one of higher priority.
local ended = ready.reason == "Expired" or ready.reason == "Exhausted"
local said = ready
if not ended and conflicted ~= nil and conflicted.status == "True" then
  health.status = "Degraded"
  said = conflicted
elseif ended or ready.status == "True" or ready.reason == "Overruled" then
  health.status = "Healthy"
elseif ready.reason == "NoMachine" then
  -- Its machine may come later.
  health.status = "Suspended"
else
  health.status = "Degraded"
end
health.message = said.reason .. ": " .. said.message
return health
