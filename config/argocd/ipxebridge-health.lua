-- Health of an IpxeBridge for Argo CD, in argocd-cm under resource.customizations.health.ipxe-bridge.io_IpxeBridge
local health = { status = "Progressing", message = "Waiting for the operator" }
if obj.status == nil or obj.status.conditions == nil or obj.status.observedGeneration ~= obj.metadata.generation then
  return health
end
local conditions = {}
for _, condition in ipairs(obj.status.conditions) do
  conditions[condition.type] = condition
end
local ready, degraded, progressing = conditions.Ready, conditions.Degraded, conditions.Progressing
if ready == nil then
  return health
end
health.message = ready.reason .. ": " .. ready.message
if ready.status == "True" then
  health.status = "Healthy"
elseif degraded ~= nil and degraded.status == "True" then
  health.status = "Degraded"
elseif progressing ~= nil and progressing.status == "True" then
  health.status = "Progressing"
else
  -- Nothing is broken and nothing is on its way: a person decides, as with no pods or no address.
  health.status = "Suspended"
end
return health
