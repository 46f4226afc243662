-- name: add_override
insert into override (tenant_id, id, rules, agent_name, session_id, reason, issued_by, created_at, expires_at, tool, request_id)
values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11);

-- name: override
select * from override where id = $1;

-- name: overrides
select * from override order by created_at desc, id desc;

-- name: count_use
update override set uses = uses + 1 where id = $1;

-- name: revoke
update override set revoked_at = coalesce(revoked_at, $2) where id = $1;

-- name: lock_head
insert into audit_head (tenant_id, sequence, seal) values ($1, 0, $2)
on conflict (tenant_id) do update set sequence = audit_head.sequence
returning sequence, seal;

-- name: move_head
update audit_head set sequence = $1, seal = $2;

-- name: add_entry
insert into audit_entry (tenant_id, sequence, actor, act, subject, detail, created_at, seal)
values ($1, $2, $3, $4, $5, $6, $7, $8);

-- name: entries
select * from (
  select * from audit_entry
  union all
  select * from audit_archive where $5
) as trail
where sequence > $6 and ($1::text = '' or actor = $1) and ($2::text = '' or act = $2)
  and ($3::timestamptz is null or created_at >= $3) and ($4::timestamptz is null or created_at < $4)
order by sequence
limit $7;

-- name: archive
with old as (delete from audit_entry where created_at < $1 returning *)
insert into audit_archive select * from old;

-- name: head
select sequence, seal from audit_head;

-- name: forget_part
delete from audit_entry where sequence between $1 and $2;

-- name: add_part
insert into audit_part (tenant_id, first_sequence, last_sequence, name, digest) values ($1, $2, $3, $4, $5)
on conflict do nothing;

-- name: parts
select first_sequence, last_sequence, name, digest from audit_part order by first_sequence;

-- name: keep_decision
insert into decision (tenant_id, id, target, agent_name, session_id, allowed, unchanged, sealed, created_at, truncated,
  bundles, rules)
values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12)
on conflict do nothing
returning id;

-- name: tell_decision
update decision set harmful = $2 where id = $1 returning *;

-- name: decisions
select * from decision
where ($1::timestamptz is null or created_at >= $1) and ($2::timestamptz is null or created_at < $2)
order by created_at desc, id desc
limit $3;

-- name: forget_decisions
delete from decision where created_at < $1;

-- name: keep_value
insert into pseudonym (tenant_id, name, sealed) values ($1, $2, $3) on conflict do nothing;

-- name: values
select name, sealed from pseudonym where name = any($1);

-- name: audited_tenants
select tenant_id from audit_head order by tenant_id;
