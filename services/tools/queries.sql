-- name: add
insert into tool (tenant_id, name, version, definition, created_at) values ($1, $2, $3, $4, $5)
on conflict do nothing
returning version;

-- name: set_state
insert into tool_state (tenant_id, tool, state) values ($1, $2, $3);

-- name: versions
select * from tool_versions($1, $2);

-- name: every
select t.definition, t.created_at, coalesce(s.state, 'active') as state
from tool t left join tool_state s on s.tenant_id = t.tenant_id and s.tool = t.name || '@' || t.version
order by t.name, t.version;

-- name: move
insert into tool_state as s (tenant_id, tool, state)
select $1, $2, $4 where $3 = coalesce((select o.state from tool_state o where o.tool = $2), 'active')
on conflict (tenant_id, tool) do update set state = excluded.state where s.state = $3
returning s.state;

-- name: log
insert into tool_audit (tenant_id, id, tool, action, actor, from_state, to_state, note, created_at)
values ($1, $2, $3, $4, $5, $6, $7, $8, $9);

-- name: audit
select id, tool, action, actor, from_state, to_state, note, created_at from tool_audit where tool = $1
order by created_at, id;

-- name: counted
select coalesce(sum(calls), 0)::bigint as total, coalesce(sum(calls) filter (where day = $2), 0)::bigint as today
from tool_usage where tool = $1;

-- name: count
select count_call($1, $2, $3, $4, $5) as full_quota;

-- name: reserve
select * from reserve_effect($1, $2, $3, $4, $5, $6, $7, $8);

-- name: take_over
update tool_effect set invocation_id = $2, step = $3, leased_until = $4
where request_id = $1 and invocation_id = $5 and step = $6 and leased_until = $7
returning request_id;

-- name: advance
select advance_effect($1, $2, $3, $4, $5, $6) as written;

-- name: forget_effects
delete from tool_effect where created_at < $1;

-- name: record
select record_invocations($1, $2);

-- name: invocations
select id, tool, agent_name as agent, subject, session_id, turn_id, arguments_digest, status, isolation, elapsed, created_at
from tool_invocation where tool = $1 order by created_at desc, id desc limit 500;
