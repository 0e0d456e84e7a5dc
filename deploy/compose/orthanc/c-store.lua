-- Orthanc script: sends each new radiograph to cxrview by C-STORE, once. If cxrview is away or full, the
-- image is not sent again; route.py does that.

-- CR, DX and Secondary Capture. A report is none of these, so the results of cxrview are not sent back to it
local RADIOGRAPHS = {
  ['1.2.840.10008.5.1.4.1.1.1'] = true,
  ['1.2.840.10008.5.1.4.1.1.1.1'] = true,
  ['1.2.840.10008.5.1.4.1.1.1.1.1'] = true,
  ['1.2.840.10008.5.1.4.1.1.7'] = true,
  ['1.2.840.10008.5.1.4.1.1.7.2'] = true,
  ['1.2.840.10008.5.1.4.1.1.7.3'] = true,
  ['1.2.840.10008.5.1.4.1.1.7.4'] = true
}

function OnStoredInstance(id, tags, metadata, origin)
  if RADIOGRAPHS[tags['SOPClassUID']] and origin['RemoteAet'] ~= 'CXRVIEW' then
    SendToModality(id, 'cxrview')
  end
end
