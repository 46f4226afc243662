-- name: add
insert into tool (tenant_id, name, version, definition, created_at) values ($1, $2, $3, $4, $5)
on conflict do nothing
returning version;

-- name: versions
select definition, created_at from tool where name = $1;

-- name: every
select definition, created_at from tool order by name, version;

-- name: record
insert into tool_invocation (tenant_id, id, tool, agent_name, subject, session_id, turn_id, arguments_digest, status,
  isolation, elapsed, created_at)
values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12);

-- name: invocations
select id, tool, agent_name as agent, subject, session_id, turn_id, arguments_digest, status, isolation, elapsed, created_at
from tool_invocation where tool = $1 order by created_at desc, id desc limit 500;
