-- name: add_bundle
insert into bundle (tenant_id, name, version, digest, document, created_at, signature, signing_key)
values ($1, $2, $3, $4, $5, $6, $7, $8)
on conflict do nothing
returning version;

-- name: get_bundles
select b.*, coalesce(array_agg(l.label order by l.label) filter (where l.label is not null), '{}') as labels
from bundle b left join bundle_label l using (tenant_id, name, version)
where $1::text = '' or b.name = $1
group by b.tenant_id, b.name, b.version
order by b.created_at desc;

-- name: has_version
select exists (select from bundle where name = $1 and version = $2);

-- name: put_label
insert into bundle_label (tenant_id, name, label, version) values ($1, $2, $3, $4)
on conflict (tenant_id, name, label) do update set version = excluded.version;

-- name: drop_label
delete from bundle_label where name = $1 and label = $2 and version = $3;

-- name: bump_revision
with changed as (update enforced_state set revision = revision + 1 returning revision)
select pg_notify('policy_enforced', revision::text) from changed;

-- name: revision
select revision from enforced_state;

-- name: put_attachment
insert into bundle_attachment (tenant_id, agent_name, name, version, profile) values ($1, $2, $3, $4, $5)
on conflict (tenant_id, agent_name, name) do update set version = excluded.version, profile = excluded.profile;

-- name: drop_attachment
delete from bundle_attachment where agent_name = $1 and name = $2;

-- name: attachments
select * from bundle_attachment order by agent_name, name;

-- name: attached
select b.*, '{}'::text[] as labels, a.agent_name, a.profile
from bundle b join bundle_attachment a using (tenant_id, name, version)
order by b.tenant_id, a.agent_name, b.name;

-- name: labelled
select b.*, array[l.label] as labels
from bundle b join bundle_label l using (tenant_id, name, version)
where l.label = $1
order by b.tenant_id, b.name;

-- name: trying
select distinct tenant_id from bundle_label where label = 'shadow';

-- name: record_violation
insert into violation (tenant_id, id, session_id, turn_id, agent_name, monitor_name, severity, violation_type, rationale,
  meta, created_at, shadow)
values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12)
on conflict do nothing
returning id;

-- name: newest_violations
select * from violation
where ($1::text = '' or session_id = $1) and ($2::text = '' or severity = $2) and ($3::text = '' or monitor_name = $3)
  and shadow = $9 and ($4::timestamptz is null or created_at >= $4) and ($5::timestamptz is null or created_at < $5)
  and ($6::timestamptz is null or (created_at, id) < ($6, $7))
order by created_at desc, id desc
limit $8;

-- name: oldest_violations
select * from violation
where ($1::text = '' or session_id = $1) and ($2::text = '' or severity = $2) and ($3::text = '' or monitor_name = $3)
  and shadow = $9 and ($4::timestamptz is null or created_at >= $4) and ($5::timestamptz is null or created_at < $5)
  and ($6::timestamptz is null or (created_at, id) > ($6, $7))
order by created_at, id
limit $8;

-- name: set_permission
insert into tool_permission (tenant_id, tool, roles, agents) values ($1, $2, $3, $4)
on conflict (tenant_id, tool) do update set roles = excluded.roles, agents = excluded.agents;

-- name: permissions
select * from tool_permission order by tenant_id, tool;
