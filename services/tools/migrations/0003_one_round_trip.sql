-- What every call asks of the database, each in one statement that sets its tenant itself.
create function tool_versions(p_tenant text, p_name text)
returns table (definition jsonb, created_at timestamptz, state text) language plpgsql as $$
begin
  perform set_config('app.tenant', p_tenant, true);
  return query select t.definition, t.created_at, coalesce(s.state, 'active')
    from tool t left join tool_state s on s.tenant_id = t.tenant_id and s.tool = t.name || '@' || t.version
    where t.name = p_name;
end $$;

-- Counts a call, and says which quota was used up instead; 0 is no limit.
create function count_call(p_tenant text, p_tool text, p_day date, p_total bigint, p_per_day bigint) returns text
language plpgsql as $$
declare
  v_total bigint;
  v_today bigint;
begin
  perform set_config('app.tenant', p_tenant, true);
  if p_total > 0 or p_per_day > 0 then
    perform pg_advisory_xact_lock(hashtextextended(p_tenant || '/' || p_tool, 0));
    select coalesce(sum(calls), 0), coalesce(sum(calls) filter (where day = p_day), 0) into v_total, v_today
      from tool_usage where tool = p_tool;
    if p_total > 0 and v_total >= p_total then return 'total'; end if;
    if p_per_day > 0 and v_today >= p_per_day then return 'day'; end if;
  end if;
  insert into tool_usage as u (tenant_id, tool, day, calls) values (p_tenant, p_tool, p_day, 1)
    on conflict (tenant_id, tool, day) do update set calls = u.calls + 1;
  return '';
end $$;

-- The effect of this name that is in force: this one, or an earlier call's.
create function reserve_effect(p_tenant text, p_request text, p_digest bytea, p_invocation text, p_step text,
  p_leased timestamptz, p_outcome jsonb, p_created timestamptz)
returns table (request_id text, digest bytea, invocation_id text, step text, leased_until timestamptz, outcome jsonb,
  created_at timestamptz) language plpgsql as $$
begin
  perform set_config('app.tenant', p_tenant, true);
  insert into tool_effect values (p_tenant, p_request, p_digest, p_invocation, p_step, p_leased, p_outcome, p_created)
    on conflict do nothing;
  return query select e.request_id, e.digest, e.invocation_id, e.step, e.leased_until, e.outcome, e.created_at
    from tool_effect e where e.request_id = p_request;
end $$;

-- Writes a step down; null when another call has taken the effect over.
create function advance_effect(p_tenant text, p_request text, p_invocation text, p_step text, p_leased timestamptz,
  p_outcome jsonb) returns text language plpgsql as $$
begin
  perform set_config('app.tenant', p_tenant, true);
  update tool_effect set step = p_step, leased_until = p_leased, outcome = p_outcome
    where request_id = p_request and invocation_id = p_invocation;
  return case when found then p_request end;
end $$;

-- Calls that ended while others were being written are written together.
create function record_invocations(p_tenant text, p_rows tool_invocation[]) returns void language plpgsql as $$
begin
  perform set_config('app.tenant', p_tenant, true);
  insert into tool_invocation select * from unnest(p_rows);
end $$;
