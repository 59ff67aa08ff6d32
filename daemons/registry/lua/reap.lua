-- What is overdue ends, as at the start of every script; this one does nothing else.
-- ARGV: none

return reply({ended = ended_calls, unhealthy = unhealthy_workers, gone = gone_workers})
