-- Orthanc script: sends each new radiograph to cxrview by STOW-RS, once, as a job of the DICOMweb plugin. If
-- cxrview is away or full, the job fails, and an operator can resubmit it; route.py does so by itself.

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
    local job = {['Resources'] = {id}, ['Synchronous'] = false}
    RestApiPost('/dicom-web/servers/cxrview/stow', DumpJson(job, true), false)
  end
end
