-- A line in the audit log by someone who watches from outside.
-- ARGV: 2 kind  3 fields (JSON object of strings)

log(ARGV[2], cjson.decode(ARGV[3]))
return reply({status = 'OK'})
